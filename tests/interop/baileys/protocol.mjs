// The line protocol of the drivers: commands come as JSON lines on standard input, answers and events go as JSON
// lines to standard output. Standard error is the log. The README of the folder above lists commands and events.

import { createInterface } from 'node:readline';

/** Tells the test what has happened. */
export function emit(event, fields) {
	process.stdout.write(JSON.stringify({ event, ...fields }) + '\n');
}

/**
 * Runs commands until standard input ends, then the process. One at a time, in their order.
 * @param commands functions by name; each gets the command and answers an object
 */
export async function serve(commands) {
	for await (const line of createInterface({ input: process.stdin })) {
		const { id, run, ...parameters } = JSON.parse(line);
		try {
			if (!Object.hasOwn(commands, run)) {
				throw new Error(`no command ${run}`);
			}
			const answer = await commands[run](parameters);
			process.stdout.write(JSON.stringify({ answer: id, ...answer }) + '\n');
		} catch (error) {
			process.stdout.write(JSON.stringify({ answer: id, error: String(error?.stack ?? error) }) + '\n');
		}
	}
	process.exit(0);
}
