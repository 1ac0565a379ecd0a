// The output of a trial as lines, read from the API as it comes.
import { ask, Problem, sweepPath } from './api.js';

const KEPT = 200_000; // lines
const KEPT_CHARS = 48 << 20;
const PARTIAL = 1 << 16; // characters of a line that has no end yet

/** @typedef {{text: string, stream: string, time: string, number: number, open?: boolean}} Line */

/** Reads JSON lines. @param {Response} resp @param {(v: any) => void} got */
async function readLines(resp, got) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (resp.body).pipeThrough(new TextDecoderStream()).getReader();
  let rest = '', complete = false;
  const take = (/** @type {string} */ text) => {
    if (text === '') {
      complete = true;
      return;
    }
    const { v, error } = JSON.parse(text);
    if (error) throw new Problem({ status: 500, detail: error.error, hint: error.hint });
    got(v);
  };
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split('\n');
    rest = lines.pop() ?? '';
    lines.forEach(take);
  }
  return complete;
}

/** @param {string} base64 */
function bytesOf(base64) {
  const text = atob(base64), b = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) b[i] = text.charCodeAt(i);
  return b;
}

/** The lines of one trial's output: the newest of them, in the order in which they came. */
export class Log {
  /** @param {(log: Log) => void} changed @param {(line: Line) => void} [onLine] of each line that is complete */
  constructor(changed, onLine) {
    this.changed = changed;
    this.onLine = onLine;
    /** @type {Line[]} */
    this.lines = [];
    this.dropped = 0; // lines before those
    this.number = 0;
    this.chars = 0;
    this.bytes = 0;
    this.notes = /** @type {string[]} */ ([]);
    /** @type {Map<string, {decoder: TextDecoder, next: number, line: Line|null}>} */
    this.strands = new Map();
    this.waiting = false;
  }

  /** Takes a piece of output. Bytes that are here already, after a stream was cut, are left out. @param {any} o */
  take(o) {
    if (o.cut || o.gone) {
      this.note(o.cut ? `${o.cut} bytes were never stored: they are over log_limit, or the disk was full` : `${o.gone} bytes have been removed since, as retention.logs says`);
      return;
    }
    const key = `${o.run} ${o.stream}`;
    let s = this.strands.get(key);
    if (!s) this.strands.set(key, s = { decoder: new TextDecoder(), next: 0, line: null });
    let data = bytesOf(o.data);
    const end = o.offset + data.length;
    if (end <= s.next) return;
    if (o.offset < s.next) data = data.subarray(s.next - o.offset);
    s.next = end;
    this.bytes += data.length;
    const parts = s.decoder.decode(data, { stream: true }).split('\n');
    parts.forEach((text, i) => {
      if (!s.line && (text || i < parts.length - 1)) {
        s.line = { text: '', stream: o.stream, time: o.time, number: this.number++, open: true };
        this.lines.push(s.line);
      }
      if (!s.line) return;
      s.line.text = join(s.line.text, text);
      this.chars += text.length;
      if (i < parts.length - 1) {
        s.line.text = s.line.text.replace(/\r+$/, '');
        s.line.open = false;
        this.onLine?.(s.line);
        s.line = null;
      }
    });
    this.bound();
    this.tell();
  }

  /** @param {string} text */
  note(text) {
    if (!this.notes.includes(text)) this.notes.push(text);
    this.tell();
  }

  bound() {
    if (this.lines.length <= KEPT * 1.1 && this.chars <= KEPT_CHARS) return;
    const drop = Math.max(this.lines.length - KEPT, Math.ceil(this.lines.length / 10));
    for (const l of this.lines.splice(0, drop)) this.chars -= l.text.length;
    this.dropped += drop;
  }

  tell() {
    if (this.waiting) return;
    this.waiting = true;
    setTimeout(() => {
      this.waiting = false;
      this.changed(this);
    }, 80);
  }
}

/** Adds to a line that has no end yet; of a progress bar only its last states are kept. @param {string} line @param {string} more */
function join(line, more) {
  const text = line + more;
  if (text.length <= PARTIAL) return text;
  const at = text.lastIndexOf('\r', text.length - 2);
  return at > 0 ? text.slice(at + 1) : text.slice(-PARTIAL);
}

/**
 * Reads output into a log until it is complete. A stream that is cut is opened again.
 * @param {Log} log @param {string} sweep @param {number} index @param {{attempt?: number, follow?: boolean, signal: AbortSignal, onTrouble?: (p: any) => void}} options
 */
export async function readLog(log, sweep, index, { attempt, follow, signal, onTrouble }) {
  for (let delay = 500; !signal.aborted; delay = Math.min(10_000, delay * 2)) {
    try {
      const resp = await ask(sweepPath(sweep, '/logs'), { signal, query: { index, attempt, follow: follow ? 'true' : '' } });
      onTrouble?.(null);
      const complete = await readLines(resp, v => {
        delay = 500;
        log.take(v);
      });
      if (complete) return;
    } catch (err) {
      if (signal.aborted) return;
      const p = /** @type {any} */ (err);
      onTrouble?.(p);
      if (p.status >= 400 && p.status < 500) return;
    }
    await new Promise(done => setTimeout(done, delay));
  }
}
