// What all charts need of the page: their answers, the theme, and the width that there is.
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { signal } from '@preact/signals';
import { search, sweepPath } from '../api.js';
import { frozen } from '../store.js';
import { chartQuery, splitFilter, view } from '../view.js';
import { Asker } from './asker.js';
import { theme as readTheme } from './palette.js';

/** @typedef {{data: any, error: any, stale: boolean, at: number, reload: () => void}} Answer */

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
  const asked = useRef(version);
  useLayoutEffect(() => {
    asked.current = version;
    current.choose(path);
  }, [path]);
  useEffect(() => {
    if (version === asked.current || frozen.value) return;
    asked.current = version;
    current.renew();
  }, [version]);
  useEffect(() => {
    const shown = () => { if (current.dirty && !frozen.value) current.renew(); };
    document.addEventListener('visibilitychange', shown);
    return () => {
      document.removeEventListener('visibilitychange', shown);
      current.end();
    };
  }, []);
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
