// Why trials failed: groups by cause, and what predicts each.
import { useRef } from 'preact/hooks';
import { html } from '../html.js';
import { count, percent, plural } from '../format.js';
import { askRetry } from '../actions.js';
import { mayAct } from '../store.js';
import { chartQuery, setView, view } from '../view.js';
import { Figure } from './figure.js';
import { setTexts } from './filter.js';
import { clock } from './scale.js';
import { useChart, useTheme } from './use.js';

/** @param {{of: any}} props */
export function FailureTab({ of }) {
  const moved = useRef(0);
  const answer = useChart(of.id, 'failures', chartQuery(), { version: of.version, moved });
  const rows = (/** @type {any} */ d) => ({
    columns: ['failed', 'attempts', 'class', 'signature', 'owner', 'means', 'over-represented', 'newest trial', 'nodes'],
    rows: d.groups.map((/** @type {any} */ g) => [g.count, g.attempts, g.class, g.signature, g.owner, g.text,
      g.lifts.map((/** @type {any} */ v) => `${v.key}=${v.label} ${percent(v.share)} of them, expected ${percent(v.base)}`).join('; '), g.trial, g.nodes.map((/** @type {any} */ n) => `${n.node} ${n.n}`).join(', ')]),
  });
  return html`<${Figure} title="Failures" name=${`${of.id}-failures`} answer=${answer} moved=${moved} rows=${rows} class="failures" drawn=${false}
    empty=${(/** @type {any} */ d) => d.groups.length === 0 && html`<p class="empty">${d.matched === 0 && view.where.length ? 'Nothing matches the filter.' : d.ended ? `None of ${plural(d.ended, 'trial')} that ended has failed.` : 'No trial has ended yet.'}</p>`}>
    ${(/** @type {any} */ d) => html`<ol class="groups">${d.groups.map((/** @type {any} */ g) => html`<${Group} key=${g.cause} g=${g} d=${d} of=${of} />`)}</ol>`}
  <//>`;
}

/** @param {{g: any, d: any, of: any}} props */
function Group({ g, d, of }) {
  const only = view.where.includes(`cause=${g.cause}`);
  const select = () => setView({ where: setTexts(view.where, 'cause', only ? [] : [String(g.cause)]) });
  return html`<li class=${only ? 'selected' : ''}>
    <div class="what">
      <b class="many">${count(g.count)}</b>
      <div><div class="signature mono">${g.signature}</div>
        <div><span class="tag">${g.class}</span> ${g.text}${g.owner !== 'trial' && html` <span class="muted">(${g.owner})</span>`}</div>
        ${g.hint && html`<div class="muted">${g.hint}</div>`}</div>
      <${Sparkline} g=${g} d=${d} />
    </div>
    <ul class="lifts">${g.lifts.map((/** @type {any} */ v) => html`<${Lift} key=${v.key + v.label} v=${v} of=${of} />`)}
      ${g.lifts.length === 0 && html`<li class="muted">No value of a parameter and no node stands out.</li>`}</ul>
    <div class="acts">
      <button type="button" aria-pressed=${only} onClick=${select}>${only ? 'Show all again' : 'Show only these'}</button>
      <button type="button" onClick=${() => of.open(g.trial)}>Newest: #${g.trial}</button>
      ${mayAct.value && html`<button type="button" onClick=${() => askRetry(of.sweep, g.class)}>Retry ${g.class} …</button>`}
      <span class="muted">${[...g.nodes.map((/** @type {any} */ n) => `${n.node} ${count(n.n)}`), g.attempts > g.count && `${count(g.attempts)} attempts in all`,
    `${clock(g.first)} … ${clock(g.last)} after the start`].filter(Boolean).join(' · ')}</span>
    </div>
  </li>`;
}

/** A value that failures have more often than others; a click selects it. @param {{v: any, of: any}} props */
function Lift({ v, of }) {
  const name = v.key === 'node' && v.level < 0 ? 'node' : `p[${v.key}]`;
  const axis = of.axes.find((/** @type {any} */ a) => a.key === v.key), level = axis?.levels[v.level];
  const where = level ? setTexts(view.where, `d[${v.key}]`, [`${level.lo}..${level.hi - 1}`]) : setTexts(view.where, name, [v.label]);
  return html`<li><button type="button" class="lift" title="Show only trials with it" onClick=${() => setView({ where })}>
    <span class="key">${v.key}=<b>${v.label}</b></span>
    <svg width="120" height="14" aria-hidden="true"><rect y="3" width="120" height="8" class="rest" /><rect y="3" width=${120 * v.share} height="8" class="bad" /><rect x=${120 * v.base - 1} width="2" height="14" class="mark" /></svg>
    <span>${percent(v.share)} of them, expected ${percent(v.base)}</span>
  </button></li>`;
}

/** @param {{g: any, d: any}} props */
function Sparkline({ g, d }) {
  const t = useTheme(), most = Math.max(1, ...g.over), n = g.over.length || 1;
  return html`<svg class="spark" width="180" height="30" role="img" aria-label=${`Over time, from ${clock(d.edges[0] ?? 0)} to ${clock(d.edges[d.edges.length - 1] ?? 0)}`}>
    <line x1="0" x2="180" y1="29.5" y2="29.5" stroke=${t.border} />
    ${g.over.map((/** @type {number} */ k, /** @type {number} */ i) => k > 0 && html`<rect key=${i} x=${i * 180 / n} width=${Math.max(1, 180 / n - 1)} y=${29 - k / most * 27} height=${k / most * 27} fill=${t.failed} />`)}
  </svg>`;
}
