// Drives an unmodified Baileys: node driver.mjs WEBSOCKET_URL ROOT_KEY_HEX FOLDER
//
// Two things are set from outside, because Baileys has no option for them: the key that it trusts, and that media
// which are announced without a host do not come from WhatsApp's. The credentials live in FOLDER, so that another
// process with the same folder is the same device.

import { createHash } from 'node:crypto';
import makeWASocket, {
	Browsers,
	DEF_MEDIA_HOST,
	DisconnectReason,
	WA_CERT_DETAILS,
	decryptPollVote,
	downloadMediaMessage,
	getContentType,
	isJidGroup,
	jidNormalizedUser,
	normalizeMessageContent,
	useMultiFileAuthState,
} from 'baileys';
import pino from 'pino';
import { emit, serve } from './protocol.mjs';

const [url, rootKey, folder] = process.argv.slice(2);
WA_CERT_DETAILS.PUBLIC_KEY = Buffer.from(rootKey, 'hex');

const { fetch } = globalThis;
globalThis.fetch = async (resource, options) => {
	const from = new URL(resource);
	if (from.host === DEF_MEDIA_HOST) {
		const { hosts } = await socket.refreshMediaConn();
		from.host = hosts[0].hostname;
	}
	return fetch(from, options);
};

// Its Signal library prints to standard output, which belongs to the line protocol.
console.log = console.info = console.debug = console.error;
const logger = pino({ level: process.env.INTEROP_LOG ?? 'warn' }, pino.destination(2));
/** What was sent, for devices that ask for it again. */
const sent = new Map();
/** The caption of an image that is not downloaded when it arrives. */
const UNWANTED = 'later';
/** Messages by id, so that a test can refer to them. */
const received = new Map();
let socket;
/** The number to pair with by code; without one it is done by QR. */
let codeFor;

async function connect() {
	const { state, saveCreds } = await useMultiFileAuthState(folder);
	socket = makeWASocket({
		auth: state,
		waWebSocketUrl: url,
		browser: Browsers.macOS('Chrome'),
		getMessage: async (key) => sent.get(key.id),
		logger,
	});
	const { ev } = socket;
	ev.on('creds.update', saveCreds);
	ev.on('connection.update', (update) => connection(socket, update));
	ev.on('messages.upsert', async ({ messages }) => {
		for (const message of messages) {
			await arrived(message);
		}
	});
	ev.on('messages.update', (updates) => updates.forEach(updated));
	ev.on('message-receipt.update', (receipts) => receipts.forEach(groupReceipt));
	ev.on('messaging-history.set', ({ chats, messages }) => {
		emit('history', { chats: chats.length, messages: messages.length });
	});
	ev.on('chats.update', (chats) => chats.forEach(stateOfChat));
	ev.on('contacts.upsert', (contacts) => contacts.forEach(({ id, name }) => stateOf(id, { name })));
	ev.on('call', (calls) => calls.forEach(called));
	ev.on('groups.upsert', (groups) => groups.forEach(({ id, subject }) => emit('group', { group: id, subject })));
}

async function connection(from, { connection, qr, lastDisconnect, receivedPendingNotifications }) {
	if (from !== socket) {
		return;
	}
	if (qr && !codeFor) {
		emit('qr', { qr });
	} else if (qr && !from.authState.creds.pairingCode) {
		emit('code', { code: await from.requestPairingCode(codeFor) });
	}
	if (connection === 'open') {
		const { id, lid } = from.authState.creds.me;
		emit('connected', { jid: id, lid });
	}
	if (receivedPendingNotifications) {
		emit('offline_done', {});
	}
	if (connection !== 'close') {
		return;
	}
	const reason = lastDisconnect?.error?.output?.statusCode;
	if (reason === DisconnectReason.restartRequired) {
		// What Baileys asks its users to do when a pairing is done.
		await connect();
		return;
	}
	emit('disconnected', { reason: String(reason), logged_out: reason === DisconnectReason.loggedOut });
}

/** What the account's devices agree on about a chat. */
function stateOf(id, fields) {
	const known = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
	if (Object.keys(known).length) {
		emit('state', { chat: number(id) ?? id, ...known });
	}
}

function stateOfChat({ id, archived, pinned, muteEndTime }) {
	stateOf(id, {
		archived,
		pinned: pinned === undefined ? undefined : Boolean(pinned),
		muted: muteEndTime === undefined ? undefined : Boolean(muteEndTime),
	});
}

/** Who calls, by the id of the call. */
const callers = new Map();
const CALLS = { offer: 'offered', terminate: 'ended', timeout: 'ended', reject: 'rejected', accept: 'accepted' };

function called({ id, from, status, isVideo }) {
	callers.set(id, from);
	emit('call', { call: id, state: CALLS[status] ?? status, video: Boolean(isVideo) });
}

/** The phone number of the first JID that is one. */
function number(...jids) {
	const jid = jids.find((jid) => jid?.endsWith('@s.whatsapp.net'));
	return jid && jidNormalizedUser(jid).split('@')[0];
}

function chat(key) {
	return isJidGroup(key.remoteJid) ? key.remoteJid : number(key.remoteJid, key.remoteJidAlt) ?? key.remoteJid;
}

function author(key) {
	if (key.fromMe) {
		return number(socket.user.id);
	}
	return isJidGroup(key.remoteJid) ? number(key.participant, key.participantAlt) : chat(key);
}

async function arrived(message) {
	const content = normalizeMessageContent(message.message);
	const type = getContentType(content);
	if (!content || type === 'protocolMessage' || type === 'senderKeyDistributionMessage') {
		return;
	}
	const { key } = message;
	received.set(key.id, message);
	// Baileys puts what it learns within a tenth of a second into one event.
	if (key.fromMe && !isJidGroup(key.remoteJid)) {
		updated({ key, update: message });
	}
	message.userReceipt?.forEach((receipt) => groupReceipt({ key, receipt }));
	const about = { id: key.id, chat: chat(key), from: author(key), from_me: key.fromMe };
	if (content.imageMessage?.caption === UNWANTED) {
		emit('message', { ...about, kind: 'image', text: UNWANTED });
	} else if (content.imageMessage) {
		const bytes = await downloadMediaMessage(message, 'buffer', {}).catch((error) => {
			emit('failed', { what: `download of ${key.id}`, error: String(error?.stack ?? error) });
		});
		const sha256 = bytes && createHash('sha256').update(bytes).digest('hex');
		emit('message', { ...about, kind: 'image', text: content.imageMessage.caption ?? '', sha256 });
	} else if (content.pollUpdateMessage) {
		voted(about.from, key, content.pollUpdateMessage);
	} else if (content.reactionMessage) {
		const { key: target, text } = content.reactionMessage;
		emit('message', { ...about, kind: 'reaction', text, target: target.id });
	} else {
		const text = content.conversation ?? content.extendedTextMessage?.text ?? `<${type}>`;
		emit('message', { ...about, kind: 'text', text });
	}
}

/** Baileys leaves it to its users to open a vote; people are named in it by number or by LID. */
function voted(from, key, { pollCreationMessageKey, vote }) {
	const poll = pollCreationMessageKey.id;
	const pollEncKey = sent.get(poll)?.messageContextInfo?.messageSecret;
	const names = (...jids) => jids.filter(Boolean).map(jidNormalizedUser);
	for (const pollCreatorJid of names(socket.user.id, socket.user.lid)) {
		for (const voterJid of names(key.participant, key.participantAlt, key.remoteJid, key.remoteJidAlt)) {
			try {
				const opened = decryptPollVote(vote, { pollEncKey, pollCreatorJid, pollMsgId: poll, voterJid });
				const options = opened.selectedOptions.map((hash) => Buffer.from(hash).toString('hex'));
				emit('vote', { poll, from, options });
				return;
			} catch {
				// Named otherwise.
			}
		}
	}
	emit('failed', { what: `vote in ${poll}`, error: 'cannot be opened' });
}

/** Receipts of a contact, by Baileys' number for the state of a message. */
const RECEIPTS = { 3: 'delivered', 4: 'read', 5: 'played' };

function updated({ key, update }) {
	if (RECEIPTS[update.status]) {
		emit('receipt', { id: key.id, chat: chat(key), from: chat(key), kind: RECEIPTS[update.status] });
	}
}

function groupReceipt({ key, receipt }) {
	const about = { id: key.id, chat: key.remoteJid, from: number(receipt.userJid) ?? receipt.userJid };
	if (receipt.receiptTimestamp) {
		emit('receipt', { ...about, kind: 'delivered' });
	}
	if (receipt.readTimestamp) {
		emit('receipt', { ...about, kind: 'read' });
	}
}

/** A group's JID stays, a number becomes one. */
function jid(to) {
	return to.includes('@') ? to : `${to}@s.whatsapp.net`;
}

async function send(to, content) {
	const message = await socket.sendMessage(jid(to), content);
	sent.set(message.key.id, message.message);
	received.set(message.key.id, message);
	return { message: message.key.id };
}

function known(id) {
	const message = received.get(id);
	if (!message) {
		throw new Error(`no message ${id}`);
	}
	return message;
}

await serve({
	async connect({ code_for }) {
		codeFor = code_for;
		await connect();
		return {};
	},
	async disconnect() {
		const former = socket;
		socket = undefined;
		// It may wait for a request of its own that nobody answers any more; whoever quits does not.
		await Promise.race([former.end(undefined), new Promise((done) => setTimeout(done, 5000))]);
		return {};
	},
	send_text: ({ to, text }) => send(to, { text }),
	send_image: ({ to, base64, caption }) =>
		send(to, { image: Buffer.from(base64, 'base64'), mimetype: 'image/png', caption, jpegThumbnail: '' }),
	react: ({ to, target, text }) => send(to, { react: { text, key: known(target).key } }),
	async read({ target }) {
		await socket.readMessages([known(target).key]);
		return {};
	},
	async create_group({ subject, members }) {
		const group = await socket.groupCreate(subject, members.map(jid));
		return { group: group.id };
	},
	send_poll: ({ to, text, members }) => send(to, { poll: { name: text, values: members, selectableCount: 1 } }),
	async reject_call({ target }) {
		await socket.rejectCall(target, callers.get(target));
		return {};
	},
	async picture({ to }) {
		const url = await socket.profilePictureUrl(jid(to), 'image').catch((error) => {
			if (error?.output?.statusCode === 404 || error?.data === 404) {
				return undefined;
			}
			throw error;
		});
		const bytes = url && Buffer.from(await (await fetch(url)).arrayBuffer());
		return { sha256: bytes ? createHash('sha256').update(bytes).digest('hex') : '' };
	},
	async set_about({ text }) {
		await socket.updateProfileStatus(text);
		return {};
	},
	async set_muted({ to }) {
		await socket.chatModify({ mute: Date.now() + 86_400_000 }, jid(to));
		return {};
	},
	/** Downloads an image that has expired: its phone uploads it again. */
	async download_again({ target }) {
		const message = await socket.updateMediaMessage(known(target));
		const bytes = await downloadMediaMessage(message, 'buffer', {});
		return { sha256: createHash('sha256').update(bytes).digest('hex') };
	},
	async logout() {
		await socket.logout();
		return {};
	},
});
