// What the trials of a sweep print, in the order in which it was stored, as lines.
import { get, sweepPath } from './api.js';
import { Lines, bytesOf } from './logstream.js';

const WINDOW = 96 << 10; // bytes of one question
const BEHIND = 500; // messages after which one who follows goes to the end
const PLACES = 65_536; // positions of a message

/** The lines of all trials of a sweep, or of those that a filter selects, of one stream or of all. Places are positions. */
export class SweepLog extends Lines {
  /** @param {string} sweep @param {[string, string][]} where @param {string} [stream] */
  constructor(sweep, where, stream = '') {
    super(sweepPath(sweep, '/log'), [...where, ...(stream ? [['stream', stream]] : [])]);
    this.start = 'from';
  }

  /** @param {any} more @returns {[string, string][]} */
  query(more) { return [...this.of, ...Object.entries(more).map(([k, v]) => /** @type {[string, string]} */ ([k, String(v)]))]; }

  /** One answer may be about a part of the way. @param {any} query @param {AbortSignal} [signal] */
  async ask(query, signal) {
    let w = await get(this.path, { signal, query: this.query(query) });
    const { next } = w;
    while (query.from === undefined && !w.pieces.length && w.from > w.first) w = await get(this.path, { signal, query: this.query({ ...query, before: w.from }) });
    this.total = w.total;
    this.ended = w.ended;
    this.first = w.first;
    return { ...w, offset: w.from, next };
  }

  end() { return { limit: WINDOW }; }

  /** @param {number} at */
  around(at) { return { before: at + 1, limit: WINDOW }; }

  behind() { return { from: this.next, limit: WINDOW }; }

  before() { return { before: this.from, limit: WINDOW }; }

  far() { return this.total - this.next > BEHIND * PLACES; }

  skips() { return false; }

  /** @param {{position: number}} piece or hit */
  placeOf(piece) { return piece.position; }

  /** @param {{run: string, stream: string}} hit */
  strandOf(hit) { return `${hit.run} ${hit.stream}`; }

  /** Makes lines of a piece, without what was stored twice. What is left out between two pieces ends a line. @param {any} p */
  take(p) {
    const of = this.strandOf(p), s = this.strands.get(of);
    let data = bytesOf(p.data), { offset } = p;
    if (s && offset < s.end) {
      data = data.subarray(s.end - offset);
      offset = s.end;
      if (!data.length) return;
    } else if (s && offset > s.end) this.strands.delete(of);
    super.take(p, of, data, offset);
  }
}
