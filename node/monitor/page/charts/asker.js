// Questions for charts: their answers are kept while newer ones come.
import { get } from '../api.js';

const LEAST = 1000; // ms between two questions for the same chart
const STILL = 300; // ms without a move of the pointer before what lies under it may change

/** Answers that were given lately, so that going back and forth shows them immediately. @type {Map<string, any>} */
const kept = new Map();
const KEPT = 48;

/** @param {string} key @param {any} data */
function keep(key, data) {
  kept.delete(key);
  kept.set(key, data);
  for (const old of kept.keys()) {
    if (kept.size <= KEPT) break;
    kept.delete(old);
  }
}

/** Asks for one chart: immediately for another question, once a second at most for a newer answer, and never while the pointer moves over it. */
export class Asker {
  /** @param {(patch: any) => void} tell */
  constructor(tell) {
    this.tell = tell;
    this.path = '';
    this.asked = 0;
    this.dirty = false; // there is something newer than was asked for
    this.timer = 0;
    /** @type {AbortController|null} */
    this.control = null;
    /** @type {{current: number}} */
    this.moved = { current: 0 };
  }

  /** @param {string} path '' for nothing */
  choose(path) {
    if (path === this.path) return;
    this.end();
    this.path = path;
    if (!path) return this.tell({ path, data: null, of: '', error: null });
    const had = kept.get(path);
    this.tell(had ? { path, data: had, of: path, error: null } : { path, error: null });
    return this.go();
  }

  /** Asks for a newer answer: behind a question that is under way, and when the tab is looked at again. */
  renew() {
    clearTimeout(this.timer);
    this.dirty = true;
    if (!this.path || this.control || document.hidden) return;
    const now = Date.now();
    const wait = Math.max(LEAST - (now - this.asked), STILL - (now - this.moved.current), 0);
    this.timer = setTimeout(() => (wait > 0 ? this.renew() : this.go()), wait);
  }

  async go() {
    const { path } = this, control = new AbortController();
    let retry = 0;
    clearTimeout(this.timer);
    this.control = control;
    this.dirty = false;
    this.asked = Date.now();
    try {
      const data = await get(path, { signal: control.signal });
      if (control.signal.aborted) return;
      keep(path, data);
      this.tell({ path, data, of: path, error: null, at: Date.now() });
    } catch (error) {
      if (control.signal.aborted) return;
      this.tell({ path, error });
      const { status, retryAfter } = /** @type {any} */ (error);
      if (status === 503 || status === 502 || status === 429 || status === 0) retry = (retryAfter || 3) * 1000;
    } finally {
      if (this.control === control) this.control = null;
    }
    if (this.control) return;
    if (retry) this.timer = setTimeout(() => this.go(), retry);
    else if (this.dirty) this.renew();
  }

  end() {
    clearTimeout(this.timer);
    this.control?.abort();
    this.control = null;
    this.dirty = false;
  }
}
