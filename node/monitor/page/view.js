// The state of a view stands in the URL: what is selected, by which value, over which seeds, and which trials are pinned.
import { batch, computed, signal } from '@preact/signals';
import { navigate, place } from './router.js';

const FILTERS = new Set(['state', 'class', 'cause', 'node', 't']);
const isFilter = (/** @type {string} */ name) => FILTERS.has(name) || /^[pdm]\[/.test(name);

/** The trial under the pointer. It is in no URL. @type {import('@preact/signals').Signal<number|null>} */
const hover = signal(null);

const state = computed(() => {
  /** @type {{where: string[], over: string[], pins: number[], value: string, goal: string, more: Record<string, string>}} */
  const v = { where: [], over: [], pins: [], value: '', goal: '', more: {} };
  for (const [name, value] of new URLSearchParams(place.value.query)) {
    if (isFilter(name)) v.where.push(`${name}=${value}`);
    else if (name === 'over') v.over.push(value);
    else if (name === 'pins') v.pins = value.split(',').map(Number).filter(n => Number.isInteger(n) && n >= 0).slice(0, 5);
    else if (name === 'value' || name === 'goal') v[name] = value;
    else v.more[name] = value;
  }
  return v;
});

/**
 * The state of the view. Reading a field subscribes to it:
 * `where` filters as the API takes them, like `p[lr]=0.001..0.01`; `value` and `goal` of charts, '' for the sweep's own;
 * `over` parameters to average over; `pins` indexes of up to five trials; `hover` the trial under the pointer, null for none;
 * `more` all else that stands in the query, such as which axes a heat map has.
 */
export const view = {
  get where() { return state.value.where; },
  get value() { return state.value.value; },
  get goal() { return state.value.goal; },
  get over() { return state.value.over; },
  get pins() { return state.value.pins; },
  get more() { return state.value.more; },
  get hover() { return hover.value; },
};

/** Name and value of a filter. @param {string} filter @returns {[string, string]} */
export function splitFilter(filter) {
  const at = filter.indexOf('=', filter.indexOf(']') + 1);
  return at < 0 ? [filter, ''] : [filter.slice(0, at), filter.slice(at + 1)];
}

/**
 * Changes the state of the view; fields that are left out stay. What is not one of the view's own fields goes to `more`; '' or null
 * takes it out of the URL.
 * @param {{where?: string[], value?: string, goal?: string, over?: string[], pins?: number[], hover?: number|null, [name: string]: any}} patch
 */
export function setView({ hover: under, ...patch }) {
  batch(() => {
    if (under !== undefined) hover.value = under;
    if (Object.keys(patch).length === 0) return;
    const { where, over, pins, value, goal, ...more } = { ...state.value, more: undefined, ...patch };
    const query = new URLSearchParams(where.map(splitFilter));
    for (const key of over) query.append('over', key);
    if (value) query.set('value', value);
    if (goal) query.set('goal', goal);
    if (pins.length) query.set('pins', pins.slice(0, 5).join(','));
    for (const [name, v] of Object.entries({ ...state.value.more, ...more })) {
      if (v !== undefined && v !== null && v !== '') query.set(name, String(v));
    }
    const text = query.toString();
    navigate(place.value.path + (text && `?${text}`), { replace: true });
  });
}

/** The query of charts: filters, value and goal, and what is added. @param {Record<string, any>} [added] @returns {URLSearchParams} */
export function chartQuery(added = {}) {
  const query = new URLSearchParams(view.where.map(splitFilter));
  if (view.value) query.set('value', view.value);
  if (view.goal) query.set('goal', view.goal);
  for (const [name, value] of Object.entries(added)) {
    for (const v of Array.isArray(value) ? value : [value]) {
      if (v !== undefined && v !== null && v !== '') query.append(name, String(v));
    }
  }
  return query;
}

/** Pins a trial, or takes its pin away. @param {number} index */
export function togglePin(index) {
  const pins = view.pins.includes(index) ? view.pins.filter(i => i !== index) : [...view.pins, index].slice(-5);
  setView({ pins });
}
