// What a sweep's page shows: which trials are selected, what its axes do, charts, and the trials themselves.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { html } from './html.js';
import { count, number } from './format.js';
import { useKeys } from './keys.js';
import { LogsTab } from './logstab.js';
import { Rail } from './rail.js';
import { navigate, sweepPlace, trialPlace } from './router.js';
import { announce } from './store.js';
import { Trials } from './sweeptrials.js';
import { Empty, Failure, Loading } from './ui.js';
import { chartQuery, setView, splitFilter, view } from './view.js';
import { Choice } from './charts/figure.js';
import { grouped, parse, setTexts, words } from './charts/filter.js';
import { CoverageTab } from './charts/coverage.js';
import { CurveTab } from './charts/curves.js';
import { Explore } from './charts/explore.js';
import { FailureTab } from './charts/failures.js';
import { HeatTab } from './charts/heatmap.js';
import { pinStyles } from './charts/palette.js';
import { SliceTab } from './charts/slicetab.js';
import { TimelineTab } from './charts/timelinetab.js';
import { unfiltered, useChart, useTheme } from './charts/use.js';

/** @type {[string, string, any][]} */
const TABS = [['explore', 'Explore', Explore], ['heat', 'Heat map', HeatTab], ['slices', 'Slices', SliceTab], ['curves', 'Curves', CurveTab],
  ['failures', 'Failures', FailureTab], ['timeline', 'Timeline', TimelineTab], ['logs', 'Logs', LogsTab], ['coverage', 'Coverage', CoverageTab]];

/** @param {{sweep: any, version: unknown, tab: string}} props */
export function SweepView({ sweep, version, tab }) {
  const id = sweep.sweep, moved = useRef(0), filtered = view.where.length > 0;
  const all = useChart(id, 'marginals', unfiltered(), { version, moved });
  const part = useChart(id, filtered ? 'marginals' : '', chartQuery(), { version, moved });
  const importance = useChart(id, 'importance', chartQuery(), { version, moved });
  const eta = useChart(id, sweep.state === 'running' && sweep.succeeded + sweep.failed > 0 ? 'eta' : '', [], { version });
  const ranked = useRanked(all.data, importance.data);
  const open = (/** @type {number} */ trial) => navigate(trialPlace(id, trial));
  const now = filtered ? part.data : all.data;
  const ended = sweep.succeeded + sweep.failed + sweep.cancelled;
  const shown = TABS.some(t => t[0] === tab) ? tab : sweep.failed > 0 && sweep.failed === ended && !sweep.running ? 'failures' : 'explore';
  const show = (/** @type {string} */ to, /** @type {any} */ patch = {}) => {
    setView(patch);
    navigate(sweepPlace(id, to) + location.search, { replace: true });
  };
  const last = view.where.length ? parse(view.where[view.where.length - 1]).name : '';
  useKeys([
    ...TABS.map(([name, text], i) => ({ key: String(i + 1), text, run: () => show(name) })),
    { key: 'b', text: 'the best trial', run: () => { if (all.data?.trial >= 0) open(all.data.trial); } },
    ...(last ? [{ key: 'Escape', text: 'take the last filter away', run: () => setView({ where: setTexts(view.where, last, []) }) }] : []),
  ], [id, last, all.data?.trial]);
  const said = useRef('');
  useEffect(() => {
    const text = filtered && now && !part.stale ? `${count(now.matched)} of ${count(now.known)} trials match` : '';
    if (text && text !== said.current) announce(text);
    said.current = text;
  }, [now, part.stale]);
  const of = useMemo(() => all.data && {
    id, sweep, version, open, show, ranked, axes: all.data.axes, name: all.data.value, best: all.data.trial,
    metric: sweep.metrics.includes(all.data.value) ? all.data.value : '',
    nothing: all.data.n > 0 ? null : html`<${NoValues} sweep=${sweep} />`,
  }, [id, sweep, version, all.data, ranked]);
  if (all.error && !all.data) return html`<${Failure} error=${all.error} retry=${all.reload} />`;
  if (!of) return html`<${Loading} />`;
  const Tab = TABS.find(t => t[0] === shown)?.[2];
  return html`<${Best} of=${of} all=${all.data} eta=${eta.data} />
    <${Filters} of=${of} all=${all.data} now=${now} stale=${part.stale} />
    ${filtered && now?.matched === 0 && now.parts && html`<${NoMatch} parts=${now.parts} axes=${of.axes} />`}
    <div class="instrument" onPointerMove=${() => { moved.current = Date.now(); }}>
      <${Rail} of=${of} all=${all.data} now=${now ?? all.data} importance=${importance.data} />
      <div class="views">
        <${Tabs} id=${id} shown=${shown} show=${show} failed=${sweep.failed} />
        <div class="view" role="tabpanel" id="view" aria-label=${TABS.find(t => t[0] === shown)?.[1]}><${Tab} of=${of} /></div>
      </div>
    </div>
    <${Trials} of=${of} total=${filtered ? now?.matched : null} />`;
}

/** Axes by what they matter, of all trials that were known when the page was opened: rows do not jump while one looks. @param {any} all @param {any} importance @returns {string[]} */
function useRanked(all, importance) {
  const ranked = useRef(/** @type {string[]} */ ([]));
  const keys = all?.axes.map((/** @type {any} */ a) => a.key) ?? [];
  const known = importance?.axes.some((/** @type {any} */ a) => a.share !== null);
  const first = useRef(true);
  if (ranked.current.length !== keys.length || (known && first.current)) {
    const share = new Map((importance?.axes ?? []).map((/** @type {any} */ a) => [a.key, a.share ?? -1]));
    ranked.current = [...keys].sort((a, b) => (share.get(b) ?? -1) - (share.get(a) ?? -1));
    if (known) first.current = false;
  }
  return ranked.current;
}

/** @param {{of: any, all: any, eta: any}} props */
function Best({ of, all, eta }) {
  return html`<div class="bestline">
    ${all.n > 0 && html`<span>best <span class="muted">${all.value}</span> <b>${number(all.best)}</b> by <a href=${trialPlace(of.id, all.trial)} onClick=${(/** @type {any} */ e) => { e.preventDefault(); of.open(all.trial); }}>#${count(all.trial)}</a></span>`}
    ${eta && html`<span class="muted">${eta.sentence}</span>`}
  </div>`;
}

/** What is selected, and what the charts are about. @param {{of: any, all: any, now: any, stale: boolean}} props */
function Filters({ of, all, now, stale }) {
  const s = of.sweep, goal = view.goal || all.goal;
  const drop = (/** @type {string} */ name) => setView({ where: setTexts(view.where, name, []) });
  const state = view.where.map(splitFilter).filter(([n]) => n === 'state').map(([, v]) => v);
  const values = /** @type {[string, string][]} */ ([...new Set([s.objective?.metric, ...s.metrics].filter(Boolean)), ...['wall', 'cpu', 'memory'].filter(v => !s.metrics.includes(v))]
    .map(v => [v, v === s.objective?.metric ? `${v} (objective)` : { wall: 'wall time', cpu: 'CPU time', memory: 'peak memory' }[v] ?? v]));
  if (!values.some(v => v[0] === all.value)) values.unshift([all.value, 'choose …']);
  const choose = (/** @type {string} */ v) => setView({ value: v === (s.objective?.metric ?? s.metrics[0]) ? '' : v, goal: '' });
  return html`<div class="filters" role="group" aria-label="Selection">
    <div class="chips">
      ${grouped(view.where).map(([name, texts]) => html`<button type="button" class="chip" key=${name} onClick=${() => drop(name)} title="Take this filter away"
        aria-label=${`${words(name, texts, of.axes)}, take this filter away`}><span>${words(name, texts, of.axes)}</span><span aria-hidden="true">✕</span></button>`)}
      ${view.over.map(key => html`<button type="button" class="chip over" key=${key} onClick=${() => setView({ over: view.over.filter(k => k !== key) })} aria-label=${`averaged over ${key}, stop`}>
        <span>averaged over ${key}</span><span aria-hidden="true">✕</span></button>`)}
      <span class=${`matched ${stale ? 'muted' : ''}`}>${view.where.length === 0 ? html`<span class="muted">all ${count(all.known)} trials that began</span>`
        : now && html`<b>${count(now.matched)}</b> of ${count(now.known)} match${now.n > 0 && html` · best ${number(now.best)} · mean ${number(now.mean)} · sd ${number(now.sd)}`}`}</span>
      ${(view.where.length > 0 || view.over.length > 0) && html`<button type="button" class="quiet" onClick=${() => setView({ where: [], over: [] })}>Reset</button>`}
    </div>
    <div class="choices">
      <${Choice} label="state" value=${state.length === 1 ? state[0] : ''} options=${[['', state.length > 1 ? 'several' : 'any'], 'succeeded', 'failed', 'running', 'cancelled']}
        onChange=${(/** @type {string} */ v) => setView({ where: setTexts(view.where, 'state', v ? [v] : []) })} />
      <${Average} of=${of} />
      <${Choice} label="value" value=${all.value} options=${values} onChange=${choose} />
      <button type="button" class="quiet" title="Which values are better" aria-label=${`${goal === 'maximize' ? 'greater' : 'smaller'} is better, turn around`}
        onClick=${() => setView({ goal: goal === 'maximize' ? 'minimize' : 'maximize' })}>${goal === 'maximize' ? '↑' : '↓'} better</button>
    </div>
  </div>
  ${view.pins.length > 0 && html`<${Pins} of=${of} />`}`;
}

/** @param {{of: any}} props */
function Average({ of }) {
  const rest = of.axes.map((/** @type {any} */ a) => a.key).filter((/** @type {string} */ k) => !view.over.includes(k));
  if (rest.length === 0) return null;
  return html`<${Choice} label="average over" value="" options=${[['', '–'], ...rest]} onChange=${(/** @type {string} */ v) => { if (v) setView({ over: [...view.over, v] }); }} />`;
}

/** @param {{of: any}} props */
function Pins({ of }) {
  const styles = pinStyles(view.pins, useTheme().dark);
  const compare = () => navigate(`${sweepPlace(of.id, 'compare')}?pins=${view.pins.join(',')}`);
  return html`<div class="pins"><span class="muted">pinned</span>${view.pins.map(i => html`<span key=${i} class="pin" style=${{ borderLeftColor: styles.get(i)?.color }}><button type="button" class="link" onClick=${() => of.open(i)}>#${count(i)}</button>
      <button type="button" class="quiet" aria-label=${`unpin ${i}`} onClick=${() => setView({ pins: view.pins.filter(p => p !== i) })}>✕</button></span>`)}
    ${view.pins.length > 1 && html`<button type="button" onClick=${compare}>Compare</button>`}</div>`;
}

/** @param {{id: string, shown: string, show: (tab: string) => void, failed: number}} props */
function Tabs({ shown, show, failed }) {
  const bar = useRef(/** @type {HTMLElement|null} */ (null));
  const key = (/** @type {KeyboardEvent} */ e) => {
    const at = TABS.findIndex(t => t[0] === shown);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: TABS.length - 1 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    e.stopPropagation();
    const next = TABS[(to + TABS.length) % TABS.length][0];
    show(next);
    requestAnimationFrame(() => /** @type {HTMLElement|null} */ (bar.current?.querySelector('[aria-selected="true"]'))?.focus());
  };
  return html`<div class="tabs" role="tablist" aria-label="Views" ref=${bar} onKeyDown=${key}>${TABS.map(([name, text], i) => html`<button type="button" role="tab" key=${name} aria-selected=${name === shown}
    aria-controls="view" tabindex=${name === shown ? 0 : -1} title=${`${text} (${i + 1})`} onClick=${() => show(name)}>${text}${name === 'failures' && failed > 0 ? html` <span class="state failed">${count(failed)}</span>` : ''}</button>`)}</div>`;
}

/** What empties the selection. @param {{parts: {part: string, count: number}[], axes: any[]}} props */
function NoMatch({ parts, axes }) {
  return html`<div class="notice warn" role="status"><p><strong>No trial matches all of the filter.</strong> Alone, each part of it selects:</p>
    <ul>${parts.map(p => {
      const [name, text] = splitFilter(p.part);
      return html`<li key=${p.part}><b>${count(p.count)}</b> ${words(name, text.split('|'), axes)} <button type="button" class="link" onClick=${() => setView({ where: setTexts(view.where, name, []) })}>take it away</button></li>`;
    })}</ul></div>`;
}

/** Why there is nothing to draw, and what to do. @param {{sweep: any}} props */
function NoValues({ sweep: s }) {
  const ended = s.succeeded + s.failed + s.cancelled;
  if (ended === 0) {
    return html`<${Empty} title=${s.running ? `No trial has ended yet; ${count(s.running)} running.` : 'No trial has ended yet.'}>
      <p>${s.running ? 'Charts appear with the first result. The timeline shows what runs.' : s.problem || s.waits || 'Charts appear with the first result.'}</p><//>`;
  }
  if (s.failed === ended) return html`<${Empty} title=${`All ${count(s.failed)} trials that ended have failed.`}><p>“Failures” groups them by cause.</p><//>`;
  if (s.metrics.length === 0) {
    return html`<${Empty} title="The trials have reported no metrics."><p>States, times and failures are still shown; choose “wall time” as the value. To report a metric, a program appends a line to the file that${' '}
      <code>$MLF_METRICS</code> names:</p><pre>${'echo \'{"accuracy": 0.97}\' >> "$MLF_METRICS"'}</pre><p>or project.yaml says where it writes them: <code>metrics: {log: result/log}</code>.</p><//>`;
  }
  return html`<${Empty} title="No trial has a finite value of this: it is NaN, infinite, or was not reported."><p>Choose another value above, such as wall time.</p><//>`;
}
