// The output of a trial as lines: a range of its bytes, read in windows from the API.
import { get, sweepPath } from './api.js';

export const WINDOW = 128 << 10; // bytes of one question
const KEPT = 4 << 20; // bytes that are kept
const PROGRESS = 16 << 10; // characters of a line that is written over
const BEHIND = 1 << 20; // bytes after which one who follows goes to the end

/** @typedef {{text: string, stream: string, time: string, offset: number, open: boolean}} Line */

/** @param {string} base64 */
function bytesOf(base64) {
  const text = atob(base64), b = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) b[i] = text.charCodeAt(i);
  return b;
}

/** Adds to a line; of a progress bar that is written again and again only the last states are kept. @param {string} line @param {string} more */
function join(line, more) {
  const text = line + more;
  const at = text.length > PROGRESS ? text.lastIndexOf('\r', text.length - 2 - PROGRESS / 4) : -1;
  return at > 0 ? text.slice(at + 1) : text;
}

/** The lines of one attempt's output, of one stream or of all. */
export class Log {
  /** @param {string} sweep @param {number} index @param {{attempt?: number, stream?: string}} options */
  constructor(sweep, index, { attempt, stream } = {}) {
    this.path = sweepPath(sweep, `/trials/${index}/log`);
    this.of = { attempt, stream };
    /** @type {any[]} */
    this.pieces = [];
    /** @type {Line[]} */
    this.lines = [];
    /** @type {Map<string, {decoder: TextDecoder, line: Line|null, skip: boolean}>} */
    this.strands = new Map();
    this.first = 0; // offset of the first byte that has not been removed, as far as that is known
    this.from = 0; // of the first one that is here
    this.next = 0; // behind the last one
    this.total = 0;
    this.ended = false;
    this.cut = 0;
    this.gone = '';
  }

  /** @param {any} query @param {AbortSignal} [signal] */
  async ask(query, signal) {
    const w = await get(this.path, { signal, query: { ...this.of, ...query } });
    this.total = w.total;
    this.ended = w.ended;
    this.cut = w.cut;
    this.gone = w.gone ?? '';
    if (query.offset < w.offset) this.first = w.offset;
    return w;
  }

  /** Holds a window and nothing else. @param {any} w */
  reset(w) {
    this.pieces = w.pieces;
    this.from = w.offset;
    this.next = w.next;
    this.rebuild();
  }

  /** Goes to the end. @param {AbortSignal} [signal] */
  async tail(signal) { this.reset(await this.ask({ tail: WINDOW }, signal)); }

  /** Goes to an offset. @param {number} offset @param {AbortSignal} [signal] */
  async around(offset, signal) { this.reset(await this.ask({ offset: Math.max(0, offset - WINDOW / 2), limit: WINDOW }, signal)); }

  /** Takes what comes behind, unless another window is held by then; reports whether there may be more at once. @param {boolean} follow @param {AbortSignal} [signal] */
  async later(follow, signal) {
    const { next } = this, skip = follow && this.total - next > BEHIND;
    const w = await this.ask(skip ? { tail: WINDOW } : { offset: next, limit: WINDOW }, signal);
    if (this.next !== next) return false;
    if (skip) {
      this.reset(w);
      return false;
    }
    this.next = w.next;
    this.pieces.push(...w.pieces);
    if (this.next - this.from > KEPT) {
      while (this.next - this.pieces[0].offset > KEPT * 0.75) this.pieces.shift();
      this.from = this.pieces[0].offset;
      this.rebuild();
    } else for (const p of w.pieces) this.take(p);
    return this.next < this.total;
  }

  /** Takes what comes before; gives how many lines more there are. @param {AbortSignal} [signal] */
  async earlier(signal) {
    const { from } = this, offset = Math.max(this.first, from - WINDOW);
    const w = await this.ask({ offset, limit: from - offset }, signal);
    if (this.from !== from || w.offset >= from) return 0; // another window is held, or nothing is before
    if (w.next > from) return this.earlier(signal); // what was asked for has been removed in part
    const before = this.lines.length;
    this.pieces = [...w.pieces, ...this.pieces];
    this.from = w.offset;
    this.rebuild();
    return this.lines.length - before;
  }

  rebuild() {
    this.lines = [];
    this.strands = new Map();
    for (const p of this.pieces) this.take(p);
  }

  /** Makes lines of a piece. A range that does not begin at a line leaves out the rest of it. @param {any} p */
  take(p) {
    let s = this.strands.get(p.stream);
    if (!s) this.strands.set(p.stream, s = { decoder: new TextDecoder(), line: null, skip: this.from > 0 });
    let offset = p.offset;
    const parts = s.decoder.decode(bytesOf(p.data), { stream: true }).split('\n');
    parts.forEach((text, i) => {
      const last = i === parts.length - 1;
      if (!s.skip && !s.line && (text || !last)) this.lines.push(s.line = { text: '', stream: p.stream, time: p.time, offset, open: true });
      if (s.line) s.line.text = join(s.line.text, text);
      if (!last) {
        if (s.line) s.line.open = false;
        s.line = null;
        s.skip = false;
        offset += new TextEncoder().encode(text).length + 1;
      }
    });
  }

  /** The place of the line with an offset. @param {number} offset @param {string} stream */
  lineAt(offset, stream) {
    for (let i = this.lines.length - 1; i >= 0; i--) if (this.lines[i].offset <= offset && this.lines[i].stream === stream) return i;
    return -1;
  }

  /** Places of a text in all of the output: one answer may be about a part of it. @param {string} q @param {AbortSignal} [signal] */
  async search(q, signal) {
    let found = /** @type {any} */ ({ next: 0 });
    do found = await get(`${this.path}/search`, { signal, query: { ...this.of, q, limit: 500, offset: found.next } });
    while (!found.hits.length && found.next !== undefined);
    return found;
  }
}
