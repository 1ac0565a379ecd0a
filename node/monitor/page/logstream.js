// Output as lines: a range of what a trial has printed, read in windows from the API.
import { get, sweepPath } from './api.js';

const WINDOW = 128 << 10; // bytes of one question
const KEPT = 4 << 20; // bytes that are kept
const PIECE = 512; // what a piece takes beside its text, with its line and its strand
const PROGRESS = 16 << 10; // characters of a line that is written over
const BEHIND = 1 << 20; // bytes after which one who follows goes to the end

/** @typedef {{text: string, stream: string, time: string, offset: number, open: boolean, of: string, index: number}} Line `of` is its strand */

/** @param {string} base64 */
export function bytesOf(base64) {
  const text = atob(base64), b = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) b[i] = text.charCodeAt(i);
  return b;
}

/** What a piece takes. @param {{data: string}} p */
const weight = p => p.data.length + PIECE;

/** Adds to a line; of a progress bar that is written again and again only the last states are kept. @param {string} line @param {string} more */
function join(line, more) {
  const text = line + more;
  const at = text.length > PROGRESS ? text.lastIndexOf('\r', text.length - 2 - PROGRESS / 4) : -1;
  return at > 0 ? text.slice(at + 1) : text;
}

/**
 * The lines of what was printed, by windows that `ask` gives: their pieces lie from `offset` to `next`, in an order of their own. A kind of log says how
 * to ask for the end, for what is behind and before, and for a hit of its search.
 */
export class Lines {
  /** @param {string} path of the API @param {any} of what is asked for in each question */
  constructor(path, of) {
    this.path = path;
    this.of = of;
    /** @type {any[]} */
    this.pieces = [];
    /** @type {Line[]} */
    this.lines = [];
    /** @type {Map<string, {decoder: TextDecoder, line: Line|null, skip: boolean, end: number}>} */
    this.strands = new Map();
    this.first = 0; // place of the first byte that has not been removed, as far as that is known
    this.from = 0; // of the first one that is here
    this.next = 0; // behind the last one
    this.total = 0;
    this.turn = 0; // jumps so far
    this.held = 0; // what the pieces take
    this.ended = false;
    this.cut = 0;
    this.gone = '';
  }

  /** Holds another window, unless yet another one is asked for meanwhile; reports whether it does. @param {any} query @param {AbortSignal} [signal] */
  async jump(query, signal) {
    const turn = ++this.turn, w = await this.ask(query, signal);
    if (turn !== this.turn) return false;
    this.reset(w);
    return true;
  }

  /** Holds a window and nothing else. @param {any} w */
  reset(w) {
    this.pieces = w.pieces;
    this.from = w.offset;
    this.next = w.next;
    this.rebuild();
  }

  /** Goes to the end, as jump does. @param {AbortSignal} [signal] */
  tail(signal) { return this.jump(this.end(), signal); }

  /** Goes to a hit, as jump does. @param {any} hit @param {AbortSignal} [signal] */
  async show(hit, signal) {
    const at = this.placeOf(hit);
    if (at < this.from || at >= this.next) return this.jump(this.around(at), signal);
    this.turn++;
    return true;
  }

  /** Takes what comes behind, unless another window is held by then; reports whether there may be more immediately. @param {boolean} follow @param {AbortSignal} [signal] */
  async later(follow, signal) {
    const { next } = this, skip = follow && this.far();
    const w = await this.ask(skip ? this.end() : this.behind(), signal);
    if (this.next !== next) return false;
    if (skip) {
      this.reset(w);
      return false;
    }
    this.next = w.next;
    for (const p of w.pieces) {
      this.pieces.push(p);
      this.held += weight(p);
    }
    if (this.held > KEPT) {
      let n = 0;
      for (let left = this.held; left > KEPT * 0.75; n++) left -= weight(this.pieces[n]);
      this.pieces = this.pieces.slice(n);
      this.from = this.placeOf(this.pieces[0]);
      this.rebuild();
    } else for (const p of w.pieces) this.take(p);
    return this.next < this.total;
  }

  /** Takes what comes before; gives how many lines more there are. @param {AbortSignal} [signal] */
  async earlier(signal) {
    const { from } = this, w = await this.ask(this.before(), signal);
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
    this.held = 0;
    for (const p of this.pieces) {
      this.held += weight(p);
      this.take(p);
    }
  }

  /** Makes lines of a piece. @param {any} p @param {string} [of] its strand @param {Uint8Array} [data] @param {number} [offset] */
  take(p, of = p.stream, data = bytesOf(p.data), offset = p.offset) {
    let s = this.strands.get(of);
    if (!s) this.strands.set(of, s = { decoder: new TextDecoder(), line: null, skip: this.skips(), end: 0 });
    s.end = offset + data.length;
    const parts = s.decoder.decode(data, { stream: true }).split('\n');
    for (let i = 0; i < parts.length; i++) {
      const text = parts[i], last = i === parts.length - 1;
      if (!s.skip && !s.line && (text || !last)) this.lines.push(s.line = { text: '', stream: p.stream, time: p.time, offset, open: true, of, index: p.index });
      if (s.line) s.line.text = join(s.line.text, text);
      if (!last) {
        if (s.line) s.line.open = false;
        s.line = null;
        s.skip = false;
        offset += new TextEncoder().encode(text).length + 1;
      }
    }
  }

  /** The place of the line with a hit. @param {any} hit */
  lineAt(hit) {
    const of = this.strandOf(hit);
    for (let i = this.lines.length - 1; i >= 0; i--) if (this.lines[i].offset <= hit.offset && this.lines[i].of === of) return i;
    return -1;
  }

  /** Places of a text in all of the output: one answer may be about a part of it. @param {string} q @param {AbortSignal} [signal] */
  async search(q, signal) {
    let found = /** @type {any} */ ({ next: 0 });
    do found = await get(`${this.path}/search`, { signal, query: this.query({ q, limit: 500, [this.start]: found.next }) });
    while (!found.hits.length && found.next !== undefined);
    return found;
  }
}

/** The lines of one attempt's output, of one stream or of all. Places are offsets. */
export class Log extends Lines {
  /** @param {string} sweep @param {number} index @param {{attempt?: number, stream?: string}} options */
  constructor(sweep, index, { attempt, stream } = {}) {
    super(sweepPath(sweep, `/trials/${index}/log`), { attempt, stream });
    this.start = 'offset';
  }

  /** @param {any} more */
  query(more) { return { ...this.of, ...more }; }

  /** @param {any} query @param {AbortSignal} [signal] */
  async ask(query, signal) {
    const w = await get(this.path, { signal, query: this.query(query) });
    this.total = w.total;
    this.ended = w.ended;
    this.cut = w.cut;
    this.gone = w.gone ?? '';
    if (query.offset < w.offset) this.first = w.offset;
    return w;
  }

  end() { return { tail: WINDOW }; }

  /** @param {number} at */
  around(at) { return { offset: Math.max(0, at - WINDOW / 2), limit: WINDOW }; }

  behind() { return { offset: this.next, limit: WINDOW }; }

  before() {
    const offset = Math.max(this.first, this.from - WINDOW);
    return { offset, limit: this.from - offset };
  }

  /** Whether one who follows goes to the end. */
  far() { return this.total - this.next > BEHIND; }

  /** A range that does not begin at a line leaves out the rest of it. */
  skips() { return this.from > 0; }

  /** @param {{offset: number}} piece or hit */
  placeOf(piece) { return piece.offset; }

  /** @param {{stream: string}} hit */
  strandOf(hit) { return hit.stream; }
}
