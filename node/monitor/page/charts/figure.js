// The frame of a chart: heading, sentence, the same as a table, as CSV and as a picture. And the canvas in it.
import { useId, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { html } from '../html.js';
import { Failure } from '../ui.js';
import { count, time } from '../format.js';
import { csv, picture, save } from './export.js';

const PAGE = 200; // rows of a chart's table

/**
 * @typedef {{columns: string[], rows: (string|number|null)[][]}} Rows
 * @param {{title: string, name: string, answer: import('./use.js').Answer, moved?: {current: number}, rows?: (data: any) => Rows,
 *   tools?: any, children: (data: any) => any, empty?: (data: any) => any, note?: any, class?: string, sentence?: any, drawn?: boolean}} props
 * `name` is of files; `drawn` says that there is a picture to save; `empty` gives what stands instead of the chart where there is nothing to draw.
 */
export function Figure({ title, name, answer, moved, rows, tools, children, empty, note, sentence, drawn = true, ...rest }) {
  const { data, error, stale, reload } = answer;
  const [table, setTable] = useState(false);
  const box = useRef(/** @type {HTMLElement|null} */ (null));
  const id = useId();
  const nothing = data && empty?.(data);
  const draws = data && !nothing;
  const saveCSV = () => rows && save(`${name}.csv`, new Blob([csv(rows(data))], { type: 'text/csv' }));
  const savePNG = () => picture(box.current, `${name}.png`, title, `${data.sentence} · ${name} · ${time(Date.now())}`);
  const key = (/** @type {KeyboardEvent} */ e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || /** @type {HTMLElement} */ (e.target).closest('input:not([type=range]),select,textarea')) return;
    if (e.key === 't' && rows && draws) setTable(v => !v);
    else if (e.key === 'e' && draws && box.current?.querySelector('canvas')) savePNG();
    else return;
    e.preventDefault();
    e.stopPropagation();
  };
  const touch = () => { if (moved) moved.current = Date.now(); };
  return html`<figure class=${`panel chart ${rest.class ?? ''} ${stale ? 'stale' : ''}`} ref=${box} aria-labelledby=${id} aria-busy=${stale || (!data && !error)}
      onKeyDown=${key} onPointerMove=${touch} onPointerDown=${touch}>
    <header><h2 id=${id}>${title}</h2>
      ${tools && html`<div class="tools">${tools}</div>`}
      ${draws && html`<div class="aside">
        ${rows && html`<button type="button" class="quiet" aria-pressed=${table} onClick=${() => setTable(!table)} title="The same as a table (t)">Table</button>
          <button type="button" class="quiet" onClick=${saveCSV} title="The numbers of this chart">CSV</button>`}
        ${!table && drawn && html`<button type="button" class="quiet png" onClick=${savePNG} title="A picture, with what it shows (e)">PNG</button>`}
      </div>`}
    </header>
    ${error && html`<${Failure} error=${error} retry=${reload} />`}
    ${!data && !error && html`<div class="waits" role="status"><span class="muted">Asking …</span></div>`}
    ${data && html`<figcaption class="sentence">${sentence ?? data.sentence}${data.stride > 1 && html` <span class="muted">Computed from ${count(data.known)} trials: one block in ${data.stride}.</span>`}</figcaption>`}
    ${nothing}
    ${draws && (table && rows ? html`<${Numbers} of=${rows(data)} label=${title} />` : html`<div class="drawing">${children(data)}</div>`)}
    ${draws && !table && note && html`<div class="note muted">${note}</div>`}
  </figure>`;
}

/** The numbers of a chart, a page at a time. @param {{of: Rows, label: string}} props */
export function Numbers({ of, label }) {
  const [from, setFrom] = useState(0);
  const total = of.rows.length, start = Math.min(from, Math.max(0, total - 1));
  return html`<div class="scroll numbers" tabindex="0" role="region" aria-label=${`${label} as a table`}><table class="plain">
    <caption class="hidden">${label}, ${total} rows</caption>
    <thead><tr>${of.columns.map(c => html`<th scope="col" key=${c}>${c}</th>`)}</tr></thead>
    <tbody>${of.rows.slice(start, start + PAGE).map((r, i) => html`<tr key=${start + i}>${r.map((v, k) => html`<td key=${k} class=${typeof v === 'number' ? 'right' : ''}>${v ?? '–'}</td>`)}</tr>`)}</tbody>
  </table></div>
  ${total > PAGE && html`<div class="pages"><button type="button" disabled=${start === 0} onClick=${() => setFrom(Math.max(0, start - PAGE))}>Before</button>
    <span class="muted">${start + 1}–${Math.min(total, start + PAGE)} of ${total}</span>
    <button type="button" disabled=${start + PAGE >= total} onClick=${() => setFrom(start + PAGE)}>After</button></div>`}`;
}

/**
 * Two canvases, one over the other: what the data says, and what the pointer does. Each is drawn again when its own `key` changes.
 * @param {{width: number, height: number, label: string, draw: (c: CanvasRenderingContext2D) => void, drawKey: any[],
 *   over?: (c: CanvasRenderingContext2D) => void, overKey?: any[], children?: any, [handler: string]: any}} props
 */
export function Layers({ width, height, label, draw, drawKey, over, overKey = [], children, ...handlers }) {
  const base = useRef(/** @type {HTMLCanvasElement|null} */ (null)), top = useRef(/** @type {HTMLCanvasElement|null} */ (null));
  useLayoutEffect(() => paint(base.current, width, height, draw), [width, height, ...drawKey]);
  useLayoutEffect(() => { if (over) paint(top.current, width, height, over); }, [width, height, ...drawKey, ...overKey]);
  return html`<div class="layers" style=${{ width: `${width}px`, height: `${height}px` }}>
    <canvas ref=${base} role="img" aria-label=${label}></canvas>
    ${over && html`<canvas ref=${top} class="over" aria-hidden=${handlers.tabIndex === undefined ? 'true' : undefined} role=${handlers.tabIndex === undefined ? undefined : 'application'}
      aria-label=${handlers.tabIndex === undefined ? undefined : label} ...${handlers}></canvas>`}
    ${children}
  </div>`;
}

/** @param {HTMLCanvasElement|null} canvas @param {number} width @param {number} height @param {(c: CanvasRenderingContext2D) => void} draw */
function paint(canvas, width, height, draw) {
  if (!canvas || width < 1 || height < 1) return;
  const ratio = Math.min(devicePixelRatio || 1, 3);
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const c = canvas.getContext('2d');
  if (!c) return;
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  draw(c);
}

/** What is said about the place under the pointer. It stays inside of the chart. @param {{x: number, y: number, width: number, children?: any}} props */
export function Tip({ x, y, width, children }) {
  const left = x > width / 2;
  return html`<div class="tip" style=${left ? { right: `${Math.max(0, width - x + 14)}px`, top: `${Math.max(0, y - 10)}px` } : { left: `${x + 14}px`, top: `${Math.max(0, y - 10)}px` }}>${children}</div>`;
}

/** Where the pointer is in an element that events are for. @param {PointerEvent|MouseEvent} e */
export function at(e) {
  const r = /** @type {HTMLElement} */ (e.currentTarget).getBoundingClientRect();
  return { x: e.clientX - r.left, y: e.clientY - r.top };
}

/** Keeps the page from scrolling by keys that a chart has. @param {Record<string, (e: KeyboardEvent) => void>} keys */
export const onKeys = keys => (/** @type {KeyboardEvent} */ e) => {
  const fn = !e.ctrlKey && !e.metaKey && !e.altKey && keys[e.key];
  if (!fn) return;
  e.preventDefault();
  e.stopPropagation();
  fn(e);
};

/** A question with a few answers. @param {{label: string, value: string, options: (string|[string, string])[], onChange: (v: string) => void}} props */
export function Choice({ label, value, options, onChange }) {
  return html`<label class="choice"><span class="muted">${label}</span><select value=${value} onChange=${(/** @type {any} */ e) => onChange(e.target.value)}>
    ${options.map(o => {
      const [v, text] = Array.isArray(o) ? o : [o, o];
      return html`<option key=${v} value=${v} selected=${v === value}>${text}</option>`;
    })}
  </select></label>`;
}

/** Draws a brush. @param {CanvasRenderingContext2D} c @param {{x: number, y: number, w: number, h: number}} b @param {any} t */
export function brushRect(c, b, t) {
  c.fillStyle = t.dark ? 'rgba(106,168,255,.30)' : 'rgba(11,87,208,.22)';
  c.fillRect(b.x, b.y, b.w, b.h);
  c.strokeStyle = t.accent;
  c.lineWidth = 1.5;
  c.strokeRect(b.x + 0.75, b.y + 0.75, b.w - 1.5, b.h - 1.5);
}

/** What stands instead of a chart that has no values to draw; null where there are some. @param {any} data @param {any} of */
export function noValues(data, of) {
  const some = data.total ?? (typeof data.n === 'number' ? data.n : data.lines?.trial.length ?? data.time?.length ?? data.matched);
  if (some > 0) return null;
  if (of.nothing) return of.nothing;
  return html`<p class="empty">${data.matched === 0 ? 'No trial matches the filter.' : 'No trial that matches has a value.'}</p>`;
}
