// What all charts need of the page: answers of the API that are kept while newer ones come, the theme, and the width that there is.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { signal } from '@preact/signals';
import { get, search, sweepPath } from '../api.js';
import { frozen } from '../store.js';
import { chartQuery, splitFilter, view } from '../view.js';
import { theme as readTheme } from './palette.js';

const LEAST = 1000; // ms between two questions for the same chart
const STILL = 300; // ms without a move of the pointer before what lies under it may change

/** @typedef {{data: any, error: any, stale: boolean, at: number, reload: () => void}} Answer */

/** Answers that were given lately, so that going back and forth shows them at once. @type {Map<string, any>} */
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

/** Asks for one chart: at once for another question, once a second at most for a newer answer, and never while the pointer moves over it. */
class Asker {
  /** @param {(patch: any) => void} tell */
  constructor(tell) {
    this.tell = tell;
    this.path = '';
    this.asked = 0;
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

  renew() {
    clearTimeout(this.timer);
    if (!this.path || this.control) return;
    const now = Date.now();
    const wait = Math.max(LEAST - (now - this.asked), STILL - (now - this.moved.current), 0);
    this.timer = setTimeout(() => (wait > 0 ? this.renew() : this.go()), wait);
  }

  async go() {
    const { path } = this, control = new AbortController();
    clearTimeout(this.timer);
    this.control = control;
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
      if (status === 503 || status === 502 || status === 429 || status === 0) this.timer = setTimeout(() => this.go(), (retryAfter || 3) * 1000);
    } finally {
      if (this.control === control) this.control = null;
    }
  }

  end() {
    clearTimeout(this.timer);
    this.control?.abort();
    this.control = null;
  }
}

/**
 * The answer of a chart. The one before stays, marked as stale, until another is there.
 * @param {string} id of the sweep @param {string} chart '' for none @param {URLSearchParams|[string, string][]} query
 * @param {{version?: unknown, moved?: {current: number}}} [options] when something has changed, and when the pointer was last moved over the chart
 * @returns {Answer}
 */
export function useChart(id, chart, query, { version, moved } = {}) {
  const path = chart && sweepPath(id, `/charts/${chart}${search(query)}`);
  const [state, setState] = useState({ path: '', data: /** @type {any} */ (null), of: '', error: /** @type {any} */ (null), at: 0 });
  const asker = useRef(/** @type {Asker|null} */ (null));
  if (!asker.current) asker.current = new Asker(patch => setState(s => ({ ...s, ...patch })));
  const { current } = asker;
  if (moved) current.moved = moved;
  useLayoutEffect(() => { current.choose(path); }, [path]);
  useEffect(() => {
    if (version !== undefined && !frozen.value && !document.hidden) current.renew();
  }, [version]);
  useEffect(() => () => current.end(), []);
  return { data: state.data, error: state.path === path ? state.error : null, stale: state.data !== null && state.of !== path, at: state.at, reload: () => current.go() };
}

/** The query of a chart of all trials: value and goal of the view, and what is added. @param {Record<string, any>} [added] */
export function unfiltered(added = {}) {
  const query = chartQuery(added);
  for (const f of view.where) query.delete(splitFilter(f)[0]);
  return query;
}

/** The values of the trials that are drawn one by one, for the charts that mark a trial by its value. */
export const values = signal(new Map());

/** The theme that is shown. @type {import('@preact/signals').Signal<import('./palette.js').Theme|null>} */
const shown = signal(null);

function watchTheme() {
  const update = () => {
    const t = readTheme();
    if (t !== shown.peek()) shown.value = t;
  };
  update();
  new MutationObserver(update).observe(document.documentElement, { attributes: true });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', update);
  addEventListener('load', update);
}

/** The theme of the page. */
export function useTheme() {
  if (shown.peek() === null) watchTheme();
  return /** @type {import('./palette.js').Theme} */ (shown.value);
}

/** The width of an element in px, 0 until it is known. @returns {[import('preact/hooks').MutableRef<any>, number]} */
export function useWidth() {
  const ref = useRef(/** @type {any} */ (null));
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const el = ref.current;
    if (!el) return undefined;
    const measure = () => setWidth(w => (Math.abs(w - el.clientWidth) >= 1 ? el.clientWidth : w));
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(el);
    return () => watch.disconnect();
  }, []);
  return [ref, width];
}

/** Calls fn at most once in some time, and at last with the newest arguments. @param {(...args: any[]) => void} fn @param {number} ms */
export function useThrottle(fn, ms) {
  const state = useRef({ fn, timer: 0, at: 0, args: /** @type {any[]} */ ([]) });
  state.current.fn = fn;
  const [call] = useState(() => Object.assign(
    (/** @type {any[]} */ ...args) => {
      const s = state.current;
      s.args = args;
      if (s.timer) return;
      s.timer = setTimeout(() => {
        s.timer = 0;
        s.at = Date.now();
        s.fn(...s.args);
      }, Math.max(0, ms - (Date.now() - s.at)));
    },
    { cancel: () => { clearTimeout(state.current.timer); state.current.timer = 0; } },
  ));
  useEffect(() => () => call.cancel(), []);
  return call;
}
