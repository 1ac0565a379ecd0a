// A table of any length: only what is seen is asked for and drawn.
import { useEffect, useRef, useState } from 'preact/hooks';
import { html } from './html.js';
import { count } from './format.js';
import { Failure } from './ui.js';

const WINDOW = 100; // rows of one question
const KEPT = 24; // windows
const TALLEST = 8_000_000; // px; browsers cut taller boxes
const RETRY = 3; // s, after nothing or a proxy has answered
const SETTLE = 60; // ms without scrolling before rows are asked for

/** @typedef {{name: string, label?: any, title?: string, width?: number, align?: 'right', sort?: string, render?: (row: any) => any}} Column width in characters */

const NONE = Symbol('no version');

/** Rows that are kept, by windows. */
class Windows {
  /** @param {() => void} changed */
  constructor(changed) {
    this.changed = changed;
    /** @type {Map<number, {rows: any[]|null, version: unknown, control: AbortController|null, error?: any}>} version NONE to ask again */
    this.all = new Map();
    this.timer = 0;
  }

  /** What went wrong with a window that is seen; null for nothing. @returns {any} */
  get error() { return [...this.all.values()].find(w => w.error)?.error ?? null; }

  /** @param {number} index @returns {any} the row, undefined until it is known */
  row(index) {
    return this.all.get(Math.floor(index / WINDOW))?.rows?.[index % WINDOW];
  }

  /** Asks for the windows from first to last that are missing or of another version. */
  need(first, last, fetchPage, version, total) {
    for (const [n, w] of this.all) {
      if ((w.control || w.error) && (n < first || n > last)) {
        w.control?.abort();
        Object.assign(w, { control: null, error: null, version: NONE });
        if (!w.rows) this.all.delete(n);
      }
    }
    for (let n = first; n <= last; n++) {
      const old = this.all.get(n);
      if (n < 0 || n * WINDOW >= total || (old && (old.control || old.version === version))) continue;
      const w = { rows: old?.rows ?? null, version, control: new AbortController() };
      this.all.delete(n);
      this.all.set(n, w);
      fetchPage(n * WINDOW, Math.min(WINDOW, total - n * WINDOW), w.control.signal).then(
        (/** @type {any[]} */ rows) => Object.assign(w, { rows, control: null }) && this.changed(),
        (/** @type {any} */ error) => {
          if (w.control?.signal.aborted !== false) return;
          Object.assign(w, { control: null, error });
          clearTimeout(this.timer);
          if ([0, 502, 503].includes(error.status)) this.timer = setTimeout(() => this.again(), (error.retryAfter || RETRY) * 1000);
          this.changed();
        },
      );
    }
    for (const n of this.all.keys()) {
      if (this.all.size <= KEPT) break;
      if (n < first || n > last) this.all.delete(n);
    }
  }

  /** Asks again for the windows that failed. */
  again() {
    for (const w of this.all.values()) if (w.error) Object.assign(w, { error: null, version: NONE });
    this.changed();
  }

  end() {
    clearTimeout(this.timer);
    for (const w of this.all.values()) w.control?.abort();
  }
}

/**
 * A table of `total` rows. `fetchPage(offset, limit, signal)` gives rows; another function is another table, another `version` asks
 * again for what is seen. Enter and a click open a row with `onOpen(row)`; with `onSelect(row)`, x selects it.
 * @param {{fetchPage: (offset: number, limit: number, signal: AbortSignal) => Promise<any[]>, columns: Column[], total: number, label?: string,
 *   version?: unknown, onOpen?: (row: any) => void, sort?: string, desc?: boolean, onSort?: (name: string) => void,
 *   isSelected?: (row: any) => boolean, onSelect?: (row: any) => void, onHover?: (row: any) => void, rows?: number, empty?: any}} props
 */
export function Table({ fetchPage, columns, total, label = 'table', version, onOpen, sort, desc, onSort, isSelected, onSelect, onHover, rows: shown = 18, empty }) {
  const box = useRef(/** @type {HTMLDivElement|null} */ (null));
  const [drawn, draw] = useState(0);
  const redraw = () => draw(n => n + 1);
  const windows = useRef(/** @type {Windows|null} */ (null));
  const source = useRef(fetchPage);
  const top = useRef(0); // px from the first row, of all rows
  const [active, setActive] = useState(-1);
  const height = rowHeight();
  const seen = Math.min(shown, Math.max(1, total)), inner = seen * height;
  const real = total * height, tall = Math.min(real, TALLEST);
  if (!windows.current || source.current !== fetchPage) {
    windows.current?.end();
    windows.current = new Windows(redraw);
    if (source.current !== fetchPage) top.current = 0;
    source.current = fetchPage;
  }
  const store = windows.current;
  top.current = Math.max(0, Math.min(top.current, real - inner));

  const scale = real > tall ? (real - inner) / Math.max(1, tall - inner) : 1;
  const place = (/** @type {number} */ px) => {
    top.current = Math.max(0, Math.min(px, real - inner));
    if (box.current) box.current.scrollTop = top.current / scale;
    redraw();
  };
  const scrolled = () => {
    if (!box.current || Math.abs(box.current.scrollTop - top.current / scale) < 1) return;
    top.current = box.current.scrollTop * scale;
    redraw();
  };
  const go = (/** @type {number} */ index) => {
    const to = Math.max(0, Math.min(total - 1, index));
    setActive(to);
    if (to * height < top.current) place(to * height);
    else if ((to + 1) * height > top.current + inner) place((to + 1) * height - inner);
  };

  const first = Math.floor(top.current / height), last = Math.min(total - 1, first + seen);
  useEffect(() => {
    const timer = setTimeout(() => {
      store.need(Math.floor(first / WINDOW), Math.floor(last / WINDOW) + 1, fetchPage, version, total);
    }, store.all.size ? SETTLE : 0);
    return () => clearTimeout(timer);
  }, [store, Math.floor(first / WINDOW), Math.floor(last / WINDOW), version, total, drawn]);
  useEffect(() => () => windows.current?.end(), []);
  useEffect(() => { // a wheel moves by rows, however long the table is
    const el = box.current;
    const wheel = (/** @type {WheelEvent} */ e) => {
      if (scale === 1 || e.ctrlKey || e.shiftKey || !e.deltaY) return;
      e.preventDefault();
      place(top.current + (e.deltaMode === 1 ? e.deltaY * height : e.deltaY));
    };
    el?.addEventListener('wheel', wheel, { passive: false });
    return () => el?.removeEventListener('wheel', wheel);
  }, [scale, total]);

  const key = (/** @type {KeyboardEvent} */ e) => {
    const page = Math.max(1, seen - 1), row = store.row(active);
    const to = { ArrowDown: active + 1, j: active + 1, ArrowUp: active - 1, k: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: total - 1 }[e.key];
    if (e.target !== box.current || e.ctrlKey || e.metaKey || e.altKey) return;
    if (to !== undefined) go(to);
    else if (e.key === 'Enter' && row) onOpen?.(row);
    else if (e.key === 'x' && row && onSelect) onSelect(row);
    else return;
    e.preventDefault();
    e.stopPropagation();
  };
  if (total === 0) return empty ?? html`<p class="muted">No rows.</p>`;
  const indexes = [];
  for (let i = first; i <= last; i++) indexes.push(i);
  const id = (/** @type {number} */ i) => `${label.replace(/\W/g, '')}-${i}`;
  return html`${store.error && html`<${Failure} error=${store.error} retry=${() => store.again()} />`}
    <div class="table" ref=${box} tabindex="0" role="grid" aria-label=${`${label}, ${count(total)} rows`} aria-rowcount=${total + 1} aria-colcount=${columns.length}
      aria-activedescendant=${active >= first && active <= last ? id(active) : undefined} style=${{ maxHeight: `${inner + 30}px` }} onScroll=${scrolled} onKeyDown=${key}
      onFocus=${() => active < 0 && setActive(first)}>
      <div class="head" role="row" aria-rowindex="1">${columns.map(c => html`<${Head} key=${c.name} column=${c} sort=${sort} desc=${desc} onSort=${onSort} />`)}</div>
      <div class="sizer" role="presentation" style=${{ height: `${tall}px` }}>
        <div class="rows" role="rowgroup" style=${{ transform: `translateY(${top.current / scale - (top.current - first * height)}px)` }}>
          ${indexes.map(i => {
            const row = store.row(i), selected = row && isSelected?.(row);
            return html`<div key=${i} id=${id(i)} role="row" aria-rowindex=${i + 2} aria-selected=${onSelect ? !!selected : undefined}
              class=${`row ${i === active ? 'active' : ''} ${selected ? 'selected' : ''} ${onOpen ? 'opens' : ''}`}
              onClick=${(/** @type {any} */ e) => { setActive(i); if (row && onOpen && !e.target.closest('a,button,input')) onOpen(row); }}
              onMouseEnter=${() => row && onHover?.(row)}>
              ${columns.map(c => html`<div key=${c.name} role="gridcell" class=${cellClass(c)} style=${cellWidth(c)}>${row ? (c.render ? c.render(row) : row[c.name]) : html`<span class="muted">…</span>`}</div>`)}
            </div>`;
          })}
        </div>
      </div>
    </div>`;
}

const cellClass = (/** @type {Column} */ c) => `cell ${c.align ?? ''}`;
const cellWidth = (/** @type {Column} */ c) => ({ flex: `${c.width ?? 10} 0 ${c.width ?? 10}ch` });

/** @param {{column: Column, sort?: string, desc?: boolean, onSort?: (name: string) => void}} props */
function Head({ column, sort, desc, onSort }) {
  const by = column.sort, on = by && by === sort;
  return html`<div role="columnheader" class=${cellClass(column)} style=${cellWidth(column)} title=${column.title} aria-sort=${on ? (desc ? 'descending' : 'ascending') : undefined}>
    ${by && onSort
      ? html`<button type="button" class="sort" onClick=${() => onSort(by)}>${column.label ?? column.name}<span aria-hidden="true">${on ? (desc ? ' ▾' : ' ▴') : ''}</span></button>`
      : column.label ?? column.name}
  </div>`;
}

/** The height of a row by the user's choice of density, in px. */
export function rowHeight() {
  return { compact: 22, roomy: 32 }[document.documentElement.dataset.density ?? ''] ?? 26;
}

/** Rows of a page that the API gave by column. @param {any} page @returns {any[]} */
export function rowsOf(page) {
  return Array.from({ length: page.count }, (_, i) => Object.fromEntries(page.columns.map((/** @type {any} */ c) => [c.name, c.values[i]])));
}
