package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/appstate"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
	"google.golang.org/protobuf/proto"
)

// driver runs commands on a client and tells of its events.
type driver struct {
	client *whatsmeow.Client
	// Leads to the simulator.
	http *http.Client
	// The number to pair with by code; without one it is done by QR.
	codeFor string
	lock    sync.Mutex
	// What is known of messages, so that a test can refer to them by their ids.
	known map[string]types.MessageInfo
	// Images that were not downloaded when they arrived.
	images map[string]*waE2E.ImageMessage
	// Who calls, by the id of the call.
	callers map[string]types.JID
	// Answers to requests for media that have expired, by message.
	retried map[string]chan *events.MediaRetry
}

// unwanted is the caption of an image that is not downloaded when it arrives.
const unwanted = "later"

func newDriver(client *whatsmeow.Client, through *http.Client) *driver {
	return &driver{
		client:  client,
		http:    through,
		known:   map[string]types.MessageInfo{},
		images:  map[string]*waE2E.ImageMessage{},
		callers: map[string]types.JID{},
		retried: map[string]chan *events.MediaRetry{},
	}
}

func (d *driver) run(asked command) (fields, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	switch asked.Run {
	case "connect":
		d.codeFor = asked.CodeFor
		return nil, d.client.Connect()
	case "disconnect":
		d.client.Disconnect()
		return nil, nil
	case "send_text":
		return d.send(ctx, asked.To, &waE2E.Message{Conversation: proto.String(asked.Text)})
	case "send_image":
		return d.sendImage(ctx, asked)
	case "react":
		target, err := d.message(asked.Target)
		if err != nil {
			return nil, err
		}
		chat := jid(asked.To)
		return d.send(ctx, asked.To, d.client.BuildReaction(chat, target.Sender.ToNonAD(), target.ID, asked.Text))
	case "read":
		target, err := d.message(asked.Target)
		if err != nil {
			return nil, err
		}
		return nil, d.client.MarkRead(ctx, []string{target.ID}, time.Now(), target.Chat, target.Sender.ToNonAD())
	case "create_group":
		return d.createGroup(ctx, asked)
	case "logout":
		return nil, d.client.Logout(ctx)
	default:
		return d.runMore(ctx, asked)
	}
}

func (d *driver) runMore(ctx context.Context, asked command) (fields, error) {
	switch asked.Run {
	case "send_poll":
		return d.send(ctx, asked.To, d.client.BuildPollCreation(asked.Text, asked.Members, 1))
	case "vote":
		target, err := d.message(asked.Target)
		if err != nil {
			return nil, err
		}
		vote, err := d.client.BuildPollVote(ctx, &target, asked.Members)
		if err != nil {
			return nil, err
		}
		return d.send(ctx, asked.To, vote)
	case "reject_call":
		d.lock.Lock()
		caller := d.callers[asked.Target]
		d.lock.Unlock()
		return nil, d.client.RejectCall(ctx, caller, asked.Target)
	case "picture":
		return d.picture(ctx, asked.To)
	case "set_about":
		return nil, d.client.SetStatusMessage(ctx, asked.Text)
	case "set_muted":
		return nil, d.client.SendAppState(ctx, appstate.BuildMute(jid(asked.To), true, 24*time.Hour))
	case "download_again":
		return d.downloadAgain(ctx, asked.Target)
	default:
		return nil, fmt.Errorf("no command %s", asked.Run)
	}
}

// jid keeps a group's JID and makes one of a number.
func jid(to string) types.JID {
	if parsed, err := types.ParseJID(to); err == nil && strings.Contains(to, "@") {
		return parsed
	}
	return types.NewJID(to, types.DefaultUserServer)
}

func (d *driver) send(ctx context.Context, to string, message *waE2E.Message) (fields, error) {
	chat := jid(to)
	sent, err := d.client.SendMessage(ctx, chat, message)
	if err != nil {
		return nil, err
	}
	source := types.MessageSource{Chat: chat, Sender: sent.Sender, IsFromMe: true}
	d.remember(types.MessageInfo{ID: sent.ID, MessageSource: source})
	return fields{"message": sent.ID}, nil
}

func (d *driver) sendImage(ctx context.Context, asked command) (fields, error) {
	upload, err := d.client.Upload(ctx, asked.Base64, whatsmeow.MediaImage)
	if err != nil {
		return nil, err
	}
	return d.send(ctx, asked.To, &waE2E.Message{ImageMessage: &waE2E.ImageMessage{
		Caption:       &asked.Caption,
		Mimetype:      proto.String(http.DetectContentType(asked.Base64)),
		URL:           &upload.URL,
		DirectPath:    &upload.DirectPath,
		MediaKey:      upload.MediaKey,
		FileEncSHA256: upload.FileEncSHA256,
		FileSHA256:    upload.FileSHA256,
		FileLength:    &upload.FileLength,
	}})
}

func (d *driver) createGroup(ctx context.Context, asked command) (fields, error) {
	request := whatsmeow.ReqCreateGroup{Name: asked.Subject}
	for _, member := range asked.Members {
		request.Participants = append(request.Participants, jid(member))
	}
	group, err := d.client.CreateGroup(ctx, request)
	if err != nil {
		return nil, err
	}
	return fields{"group": group.JID.String()}, nil
}

func (d *driver) remember(info types.MessageInfo) {
	d.lock.Lock()
	defer d.lock.Unlock()
	d.known[info.ID] = info
}

func (d *driver) message(id string) (types.MessageInfo, error) {
	d.lock.Lock()
	defer d.lock.Unlock()
	info, found := d.known[id]
	if !found {
		return info, fmt.Errorf("no message %s", id)
	}
	return info, nil
}

func (d *driver) handle(event any) {
	switch event := event.(type) {
	case *events.QR:
		d.pair(event.Codes)
	case *events.Connected:
		emit("connected", fields{"jid": d.client.Store.ID.String(), "lid": d.client.Store.LID.String()})
	case *events.OfflineSyncCompleted:
		emit("offline_done", fields{})
	case *events.HistorySync:
		d.history(event)
	case *events.LoggedOut:
		emit("disconnected", fields{"reason": event.Reason.String(), "logged_out": true})
	case *events.StreamReplaced:
		emit("disconnected", fields{"reason": "replaced", "logged_out": false})
	case *events.Disconnected:
		emit("disconnected", fields{"reason": "closed", "logged_out": false})
	case *events.JoinedGroup:
		emit("group", fields{"group": event.JID.String(), "subject": event.Name})
	case *events.UndecryptableMessage:
		emit("failed", fields{"what": "decryption of " + event.Info.ID, "error": "undecryptable"})
	case *events.Receipt:
		d.receipt(event)
	case *events.Message:
		d.arrived(event)
	case *events.MediaRetry:
		d.lock.Lock()
		waiting := d.retried[event.MessageID]
		d.lock.Unlock()
		if waiting != nil {
			waiting <- event
		}
	default:
		d.handleMore(event)
	}
}

func (d *driver) pair(codes []string) {
	if d.codeFor == "" {
		emit("qr", fields{"qr": codes[0]})
		return
	}
	code, err := d.client.PairPhone(context.Background(), d.codeFor, true, whatsmeow.PairClientChrome, "Chrome (Linux)")
	if err != nil {
		emit("failed", fields{"what": "pairing code", "error": err.Error()})
		return
	}
	emit("code", fields{"code": code})
}

func (d *driver) receipt(receipt *events.Receipt) {
	kinds := map[types.ReceiptType]string{
		types.ReceiptTypeDelivered: "delivered",
		types.ReceiptTypeRead:      "read",
		types.ReceiptTypePlayed:    "played",
	}
	kind, found := kinds[receipt.Type]
	if !found {
		return
	}
	for _, id := range receipt.MessageIDs {
		from := d.number(receipt.Sender, receipt.SenderAlt)
		emit("receipt", fields{"id": id, "chat": d.chat(receipt.MessageSource), "from": from, "kind": kind})
	}
}

func (d *driver) arrived(event *events.Message) {
	info, content := event.Info, event.Message
	d.remember(info)
	about := fields{
		"id":      info.ID,
		"chat":    d.chat(info.MessageSource),
		"from":    d.number(info.Sender, info.SenderAlt),
		"from_me": info.IsFromMe,
	}
	switch {
	case content.GetImageMessage().GetCaption() == unwanted:
		d.lock.Lock()
		d.images[info.ID] = content.GetImageMessage()
		d.lock.Unlock()
		about["kind"], about["text"] = "image", unwanted
	case content.GetPollCreationMessageV3() != nil || content.GetPollCreationMessage() != nil:
		about["kind"], about["text"] = "text", "<pollCreationMessageV3>"
	case content.GetPollUpdateMessage() != nil:
		// The connection goes on reading only when this handler has returned; keys may have to be looked up.
		go d.voted(event)
		return
	case content.GetImageMessage() != nil:
		image := content.GetImageMessage()
		// The connection goes on reading only when this handler has returned; a download may need it.
		go d.image(about, image)
		return
	case content.GetReactionMessage() != nil:
		reaction := content.GetReactionMessage()
		about["kind"], about["text"], about["target"] = "reaction", reaction.GetText(), reaction.GetKey().GetID()
	case content.Conversation != nil:
		about["kind"], about["text"] = "text", content.GetConversation()
	case content.GetExtendedTextMessage() != nil:
		about["kind"], about["text"] = "text", content.GetExtendedTextMessage().GetText()
	default:
		return
	}
	emit("message", about)
}

func (d *driver) image(about fields, image *waE2E.ImageMessage) {
	bytes, err := d.client.Download(context.Background(), image)
	if err != nil {
		emit("failed", fields{"what": fmt.Sprintf("download of %s", about["id"]), "error": err.Error()})
		return
	}
	sum := sha256.Sum256(bytes)
	about["kind"], about["text"], about["sha256"] = "image", image.GetCaption(), hex.EncodeToString(sum[:])
	emit("message", about)
}

// number is the phone number of the first JID that is one, or the JID when its number is not known.
func (d *driver) number(jids ...types.JID) string {
	for _, jid := range jids {
		if jid.Server == types.DefaultUserServer {
			return jid.User
		}
	}
	if known, err := d.client.Store.LIDs.GetPNForLID(context.Background(), jids[0].ToNonAD()); err == nil && !known.IsEmpty() {
		return known.User
	}
	return jids[0].ToNonAD().String()
}

// chat is a group's JID, or the number of the other party.
func (d *driver) chat(source types.MessageSource) string {
	switch {
	case source.Chat.Server == types.GroupServer:
		return source.Chat.String()
	case source.IsFromMe:
		return d.number(source.Chat, source.RecipientAlt)
	default:
		return d.number(source.Chat, source.SenderAlt)
	}
}
