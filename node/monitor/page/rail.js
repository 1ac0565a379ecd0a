// The axes of a sweep in the order of what they matter: what each does, which values it has, and which of them are selected.
import { useRef, useState } from 'preact/hooks';
import { html } from './html.js';
import { count, number, percent } from './format.js';
import { setView, view } from './view.js';
import { chosen, setLevels, toggleLevel } from './charts/filter.js';
import { css, rankColor } from './charts/palette.js';
import { short } from './charts/scale.js';
import { useTheme } from './charts/use.js';

const WIDTH = 96, HEIGHT = 26;
const LIST = 64; // levels that are listed

/**
 * @param {{of: any, all: any, now: any, importance: any}} props Marginals of all trials and of those selected, and an Importance of the
 * latter, null until it is there
 */
export function Rail({ of, all, now, importance }) {
  const shares = new Map((importance?.axes ?? []).map((/** @type {any} */ a) => [a.key, a]));
  const means = all.axes.flatMap((/** @type {any} */ a) => a.mean).filter((/** @type {any} */ v) => v !== null);
  const ends = /** @type {[number, number]} */ (means.length ? [Math.min(...means), Math.max(...means)] : [0, 1]);
  const order = useRef(/** @type {string[]} */ ([]));
  const still = useRef(true);
  if (still.current || order.current.length !== all.axes.length) order.current = of.ranked;
  const axes = order.current.map(k => all.axes.find((/** @type {any} */ a) => a.key === k)).filter(Boolean);
  const filtered = new Map(now.axes.map((/** @type {any} */ a) => [a.key, a]));
  return html`<section class="panel rail" aria-label="Axes" onPointerEnter=${() => { still.current = false; }} onPointerLeave=${() => { still.current = true; }}>
    <header><h2>Axes</h2><div class="aside" title="The share of the variance of the value that an axis explains">what matters</div></header>
    <ul>${axes.map((/** @type {any} */ a) => html`<${AxisRow} key=${a.key} axis=${a} now=${filtered.get(a.key) ?? a} share=${shares.get(a.key)} ends=${ends} of=${of} />`)}</ul>
    ${all.hidden.length > 0 && html`<p class="railnote muted">One value only: ${all.hidden.join(', ')}</p>`}
    <${Pairs} importance=${importance} of=${of} />
    <${Covered} all=${all} />
  </section>`;
}

/** @param {{importance: any, of: any}} props */
function Pairs({ importance, of }) {
  const strong = (importance?.pairs ?? []).filter((/** @type {any} */ p) => p.share >= 0.005).slice(0, 4);
  if (strong.length === 0) return null;
  return html`<div class="railnote"><span class="muted">Together: </span>${strong.map((/** @type {any} */ p) => html`<button type="button" class="link" key=${p.x + p.y}
    title="See both in a heat map" onClick=${() => of.show('heat', { x: p.x, y: p.y })}>${p.x} × ${p.y} ${percent(p.share)}</button> `)}</div>`;
}

/** @param {{all: any}} props */
function Covered({ all }) {
  const done = all.axes[0]?.done.reduce((/** @type {number} */ s, /** @type {number} */ n) => s + n, 0) ?? 0, share = all.count ? done / all.count : 0;
  if (all.stride > 1 || !all.axes.length) return null;
  return html`<div class="railnote"><span class="muted">Coverage</span> <svg class="meterline" width="120" height="8" role="img" aria-label=${`${percent(share)} of all trials have ended`}>
    <rect width="120" height="8" class="rest" /><rect width=${120 * share} height="8" class="done" /></svg> ${percent(share)}</div>`;
}

/** @param {{axis: any, now: any, share: any, ends: [number, number], of: any}} props */
function AxisRow({ axis, now, share, ends, of }) {
  const [open, setOpen] = useState(false);
  const on = chosen(view.where, axis), some = on.some((/** @type {boolean} */ v) => !v);
  const over = view.over.includes(axis.key);
  const first = axis.levels.find((/** @type {any} */ _, /** @type {number} */ i) => on[i]), last = axis.levels.findLast((/** @type {any} */ _, /** @type {number} */ i) => on[i]);
  const n = on.filter(Boolean).length;
  const text = !first ? 'nothing' : first === last ? first.label : axis.scale === 'category' && !some ? `${count(axis.size)} values`
    : axis.scale === 'category' ? `${n} of ${axis.levels.length}` : `${first.label} … ${last.label}`;
  const id = `axis-${axis.key}`;
  return html`<li class=${`axis ${some ? 'filtered' : ''} ${open ? 'open' : ''}`}>
    <button type="button" class="axishead" aria-expanded=${open} aria-controls=${id} onClick=${() => setOpen(!open)}>
      <span class="name">${axis.key}${over && html`<span class="tag">averaged</span>`}</span>
      <${Share} share=${share} />
      <${Mini} axis=${axis} now=${now} on=${on} ends=${ends} />
      <span class=${`range ${some ? '' : 'muted'}`}>${text}</span>
      <span class="chevron" aria-hidden="true">${open ? '▴' : '▾'}</span>
    </button>
    ${open && html`<div id=${id} class="axisbody"><${Levels} axis=${axis} now=${now} on=${on} some=${some} over=${over} share=${share} of=${of} ends=${ends} /></div>`}
  </li>`;
}

/** @param {{share: any}} props */
function Share({ share }) {
  if (!share) return html`<span class="share muted">…</span>`;
  if (share.share === null) return html`<span class="share muted" title=${share.why}>?</span>`;
  return html`<span class="share" title=${`${percent(share.share)} of the variance; ${percent(share.best)} of what tells the best trials from the others`}>
    <svg width="34" height="8" aria-hidden="true"><rect width="34" height="8" class="rest" /><rect width=${34 * Math.min(1, share.share)} height="8" class="done" /></svg>
    <span>${Math.round(share.share * 100)} %</span></span>`;
}

/** The mean of each value as a bar; what is not selected is faint. @param {{axis: any, now: any, on: boolean[], ends: [number, number]}} props */
function Mini({ axis, now, on, ends }) {
  const t = useTheme(), n = axis.levels.length, each = WIDTH / n, gap = each > 4 ? 1 : 0;
  const high = (/** @type {number} */ v) => 3 + (Math.min(Math.max(v, ends[0]), ends[1]) - ends[0]) / (ends[1] - ends[0] || 1) * (HEIGHT - 3);
  return html`<svg class="mini" width=${WIDTH} height=${HEIGHT} aria-hidden="true">${axis.levels.map((/** @type {any} */ l, /** @type {number} */ i) => {
    const current = now.mean[i], mean = current ?? axis.mean[i];
    if (mean === null) return html`<rect key=${i} x=${i * each} y=${HEIGHT - 2} width=${Math.max(0.5, each - gap)} height="2" fill=${t.faint} />`;
    const h = high(mean);
    return html`<rect key=${i} x=${i * each} y=${HEIGHT - h} width=${Math.max(0.5, each - gap)} height=${h}
      fill=${current === null || !on[i] ? t.faint : css(rankColor(now.rank[i], t.dark))}><title>${l.label}: ${number(mean)}</title></rect>`;
  })}</svg>`;
}

/** @param {{axis: any, now: any, on: boolean[], some: boolean, over: boolean, share: any, of: any, ends: [number, number]}} props */
function Levels({ axis, now, on, some, over, share, of, ends }) {
  const t = useTheme(), listed = axis.levels.slice(0, LIST);
  const average = () => setView({ over: over ? view.over.filter(k => k !== axis.key) : [...view.over, axis.key] });
  const x = (/** @type {number} */ v) => 3 + (v - ends[0]) / (ends[1] - ends[0] || 1) * 74;
  return html`<div class="axistools">
      <label><input type="checkbox" checked=${over} onChange=${average} /> average over it</label>
      ${some && html`<button type="button" class="quiet" onClick=${() => setView({ where: setLevels(view.where, axis, axis.levels.map(() => true)) })}>all values</button>`}
      <button type="button" class="quiet" onClick=${() => of.show('heat', { x: axis.key, y: '' })}>heat map</button>
    </div>
    ${share?.why && html`<p class="muted">${share.why}</p>`}
    ${axis.levels.length > 4 && axis.scale !== 'category' && html`<${Between} axis=${axis} on=${on} />`}
    <table class="levels"><thead><tr><th scope="col">${axis.key}</th><th scope="col" class="right">n</th><th scope="col" class="right">${of.name}</th>
      <th scope="col"><span class="hidden">mean with its interval</span></th><th scope="col" class="right" title="failed">✕<span class="hidden"> failed</span></th></tr></thead>
    <tbody>${listed.map((/** @type {any} */ l, /** @type {number} */ i) => {
      const mean = now.mean[i], half = now.half[i] ?? 0;
      return html`<tr key=${i} class=${on[i] ? '' : 'off'}>
        <th scope="row"><label><input type="checkbox" checked=${on[i]} onChange=${() => setView({ where: toggleLevel(view.where, axis, i) })} />
          <span title=${`${count(axis.done[i])} of ${count(l.points)} have ended`}>${l.label}</span></label></th>
        <td class="right">${count(now.n[i])}</td><td class="right" title=${mean === null ? '' : `± ${short(half, 2)}, best ${number(now.best[i])}`}>${short(mean, 4)}</td>
        <td><svg width="80" height="14" aria-hidden="true">${mean !== null && html`<line x1=${Math.max(0, x(mean - half))} x2=${Math.min(80, x(mean + half))} y1="7" y2="7" stroke=${t.muted} stroke-width="1.5" />
          <circle cx=${Math.min(Math.max(x(mean), 3), 77)} cy="7" r="3.5" fill=${css(rankColor(now.rank[i], t.dark))} stroke=${t.muted} stroke-width=".5" />`}</svg></td>
        <td class=${`right ${now.failed[i] ? 'state failed' : 'muted'}`}>${now.failed[i] ? count(now.failed[i]) : ''}</td></tr>`;
    })}</tbody></table>
    ${axis.levels.length > LIST && html`<p class="muted">The first ${LIST} of ${axis.levels.length}; choose a range above.</p>`}`;
}

/** A range of the values of an axis. @param {{axis: any, on: boolean[]}} props */
function Between({ axis, on }) {
  const first = Math.max(0, on.indexOf(true)), last = Math.max(first, on.lastIndexOf(true));
  const set = (/** @type {number} */ f, /** @type {number} */ t) => setView({
    where: setLevels(view.where, axis, axis.levels.map((/** @type {any} */ _, /** @type {number} */ i) => i >= Math.min(f, t) && i <= Math.max(f, t))) });
  const choose = (/** @type {number} */ value, /** @type {string} */ label, /** @type {(i: number) => void} */ change) => html`<select aria-label=${`${axis.key} ${label}`} value=${value}
    onChange=${(/** @type {any} */ e) => change(Number(e.target.value))}>${axis.levels.map((/** @type {any} */ l, /** @type {number} */ i) => html`<option key=${i} value=${i} selected=${i === value}>${l.label}</option>`)}</select>`;
  return html`<div class="between">${choose(first, 'first value', i => set(i, Math.max(i, last)))}<span class="muted">to</span>${choose(last, 'last value', i => set(Math.min(first, i), i))}</div>`;
}
