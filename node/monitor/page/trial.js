// A trial: what it was run with, what came of it, its attempts, its neighbours and its output.
import { useState } from 'preact/hooks';
import { get, PREFIX, search, sessionKey, sweepPath } from './api.js';
import { askCancelOne, askRetryOne } from './actions.js';
import { html } from './html.js';
import { bytes, count, duration, number } from './format.js';
import { useKeys } from './keys.js';
import { plain } from './ansi.js';
import { Output, TrialLog } from './log.js';
import { Link, navigate, nodePlace, sweepPlace, trialPlace } from './router.js';
import { mayAct, now, trial } from './store.js';
import { rowsOf } from './table.js';
import { Answer, Command, Panel, State, Time, useData, useTitle } from './ui.js';

/** A trial by its index: of the list by index it is the one at that place. @param {string} id @param {number} index @param {AbortSignal} [signal] */
export async function getTrial(id, index, signal) {
  const row = rowsOf(await get(sweepPath(id, '/trials'), { signal, query: { offset: index, limit: 1 } }))[0];
  if (!row || row.index !== index) throw Object.assign(new Error(`${id} has no trial ${index}`), { status: 404, hint: `List them with: mlfnode trials ${id}` });
  const named = (/** @type {string} */ prefix) => Object.fromEntries(Object.entries(row).filter(([k, v]) => k.startsWith(`${prefix}[`) && v !== null).map(([k, v]) => [k.slice(2, -1), v]));
  return { ...row, params: named('p'), metrics: named('m') };
}

/** @param {{id: string, index: number}} props */
export function TrialPage({ id, index }) {
  useTitle(`${id}/${index}`);
  const live = trial(`${id}/${index}`).value;
  const version = live ? `${live.state} ${live.attempt} ${live.attempts} ${Object.keys(live.metrics ?? {}).length}` : 0;
  const row = useData(`trial ${id}/${index}`, signal => getTrial(id, index, signal), version);
  const sweep = useData(`sweep ${id}`, signal => get(sweepPath(id), { signal }));
  const go = (/** @type {number} */ to) => to >= 0 && to < (sweep.data?.count ?? 0) && navigate(trialPlace(id, to));
  useKeys([
    { key: '[', text: 'previous trial', run: () => go(index - 1) }, { key: ']', text: 'next trial', run: () => go(index + 1) },
    { key: 'r', text: 'retry this trial', run: () => mayAct.value && askRetryOne(id, index) },
    { key: 'c', text: 'compare this trial', run: () => compare(id, index) },
  ], [id, index, sweep.data?.count]);
  return html`<div class="stack"><${Answer} of=${row}>${(/** @type {any} */ r) => html`<${Detail} id=${id} row=${merge(r, live)} sweep=${sweep.data} version=${version} go=${go} />`}<//></div>`;
}

/** What is listed, with what the stream of events says, which is newer. @param {any} r @param {any} live */
function merge(r, live) {
  if (!live) return r;
  const use = live.resources ?? {};
  return { ...r, ...live, params: r.params, wall_seconds: use.wall_seconds || (live.state === 'running' ? null : r.wall_seconds), cpu_seconds: use.cpu_seconds || r.cpu_seconds,
    peak_memory_bytes: use.peak_memory_bytes || r.peak_memory_bytes };
}

/** Goes to the comparison of a trial with those that are compared already. @param {string} id @param {number} index */
function compare(id, index) {
  const key = `mlf-compare ${id}`;
  const chosen = [...new Set([...(sessionStorage.getItem(key) ?? '').split(',').filter(Boolean), String(index)])].slice(-5);
  sessionStorage.setItem(key, chosen.join(','));
  navigate(`${sweepPlace(id, 'compare')}?pins=${chosen.join(',')}`);
}

/** @param {{id: string, row: any, sweep: any, version: unknown, go: (to: number) => void}} props */
function Detail({ id, row: r, sweep, version, go }) {
  const attempts = useData(`attempts ${id}/${r.index}`, signal => get(sweepPath(id, `/trials/${r.index}/attempts`), { signal }), version);
  const [chosen, setChosen] = useState(/** @type {number|undefined} */ (undefined));
  const running = r.state === 'running';
  const wall = r.wall_seconds || (running && r.started ? (now.value - Date.parse(r.started)) / 1000 : null);
  const all = attempts.data ?? [];
  const number_ = chosen ?? (r.attempt || undefined);
  return html`<div class="head"><h1>${id}/${r.index}</h1><${State} state=${r.state} />
      ${r.attempts > 0 && html`<span class="muted">attempt ${r.attempt} of ${r.attempts}</span>`}
      ${r.node && html`<${Link} href=${nodePlace(r.node)}>${r.node}<//>`}
      <div class="actions">
        ${mayAct.value && r.state !== 'succeeded' && r.state !== 'pending' && !running && html`<button type="button" class="primary" onClick=${() => askRetryOne(id, r.index)}>Retry</button>`}
        ${mayAct.value && (r.state === 'pending' || running) && html`<button type="button" onClick=${() => askCancelOne(id, r.index)}>Cancel</button>`}
        <button type="button" onClick=${() => compare(id, r.index)}>Compare</button>
        <button type="button" disabled=${r.index === 0} onClick=${() => go(r.index - 1)} ><span class="hidden">previous trial: </span>◂ ${r.index > 0 ? count(r.index - 1) : ''}</button>
        <button type="button" disabled=${sweep && r.index >= sweep.count - 1} onClick=${() => go(r.index + 1)} ><span class="hidden">next trial: </span>${count(r.index + 1)} ▸</button>
      </div></div>
    <div class="facts">${r.started && html`<span>started <${Time} at=${r.started} /></span>`}${wall !== null && wall > 0 && html`<span>took <b>${duration(wall)}</b></span>`}
      ${r.cpu_seconds > 0 && html`<span>CPU <b>${duration(r.cpu_seconds)}</b></span>`}${r.peak_memory_bytes > 0 && html`<span>peak memory <b>${bytes(r.peak_memory_bytes)}</b></span>`}
      ${r.exit_code !== null && r.exit_code !== undefined && html`<span>exit code <b>${r.exit_code}</b></span>`}${(r.devices ?? []).length > 0 && html`<span>GPU <b class="mono">${r.devices.join(', ')}</b></span>`}</div>
    ${r.state === 'failed' && html`<${Why} id=${id} row=${r} />`}
    ${r.state === 'pending' && html`<${Waiting} id=${id} index=${r.index} />`}
    <div class="columns">
      <${Values} title="Parameters" of=${r.params} order=${sweep?.keys} empty="It has none." />
      <${Values} title="Metrics" of=${r.metrics} order=${sweep?.metrics} first=${sweep?.objective?.metric} empty=${html`None yet. A program reports them as JSON lines in the file <code>$MLF_METRICS</code>.`} />
    </div>
    <${Neighbours} id=${id} index=${r.index} version=${r.state} />
    <${ByHand} id=${id} index=${r.index} attempt=${number_} version=${version} />
    ${all.length > 0 && html`<${Attempts} all=${all} chosen=${number_} choose=${setChosen} />`}
    ${r.attempts > 0 || running ? html`<${Panel} title="Log" aside=${html`<span>attempt ${number_ ?? '–'}</span>`}>
      <${TrialLog} sweep=${id} index=${r.index} attempt=${number_} /><//>
      <${Files} id=${id} index=${r.index} attempt=${number_} version=${r.state} />` : null}`;
}

/** Why a trial failed: first in words. @param {{id: string, row: any}} props */
function Why({ id, row: r }) {
  const groups = useData(`failures ${id}`, signal => get(sweepPath(id, '/failures'), { signal }));
  const g = groups.data?.groups.find((/** @type {any} */ x) => x.class === r.class);
  const [first, ...rest] = (r.reason ?? '').split('\n');
  return html`<div class="notice failed"><p class="wrap"><strong>${plain(first) || 'It failed.'}</strong></p>
    ${g && html`<p>${g.cause} <span class="tag">${r.class}</span>${g.count > 1 && html` · <${Link} href=${`${sweepPlace(id, 'failures')}?class=${encodeURIComponent(r.class)}`}>${count(g.count)} trials failed in this way<//>`}</p>`}
    ${g?.hint && html`<p>${g.hint}</p>`}
    ${rest.length > 0 && html`<div class="log wraps last" tabindex="0" role="group" aria-label="Last lines"><${Output} text=${rest.join('\n')} /></div>`}</div>`;
}

/** What a trial waits for. @param {{id: string, index: number}} props */
function Waiting({ id, index }) {
  const why = useData(`explain ${id}/${index}`, signal => get(sweepPath(id, `/trials/${index}/explain`), { signal }), Math.floor(now.value / 5000));
  if (!why.data) return null;
  return html`<div class="notice"><p class="wrap"><strong>${why.data.text}</strong></p>${(why.data.nodes ?? []).map((/** @type {any} */ n) => html`<p key=${n.node}>${n.node && html`<b>${n.node}</b>: `}${n.text}</p>`)}</div>`;
}

/** Names and values. @param {{title: string, of: Record<string, any>, order?: string[], first?: string, empty: any}} props */
function Values({ title, of, order, first, empty }) {
  const names = Object.keys(of ?? {}), place = (/** @type {string} */ n) => (n === first ? -1 : (order ?? []).indexOf(n));
  names.sort((a, b) => place(a) - place(b));
  return html`<${Panel} title=${title}>${names.length ? html`<table class="plain values"><tbody>${names.map(n => html`<tr key=${n}><th scope="row">${n}${n === first && html` <span class="tag">objective</span>`}</th>
    <td class="wrap mono" title=${String(of[n])}>${number(of[n])}</td></tr>`)}</tbody></table>` : html`<p class="pad muted">${empty}</p>`}<//>`;
}

/** The trials that differ in one parameter. @param {{id: string, index: number, version: unknown}} props */
function Neighbours({ id, index, version }) {
  const slices = useData(`slices ${id}/${index}`, signal => get(sweepPath(id, '/charts/slices'), { signal, query: { trial: index } }), version);
  const axes = (slices.data?.axes ?? []).filter((/** @type {any} */ a) => a.index.length > 1);
  if (!axes.length) return null;
  return html`<${Panel} title="Neighbours" aside=${slices.data.value}><p class="pad">${slices.data.sentence}</p><div class="scroll"><table class="plain"><tbody>
    ${axes.map((/** @type {any} */ a) => html`<tr key=${a.key}><th scope="row">${a.key}</th><td><span class="walk">${around(a).map(i => (i === a.at
      ? html`<b key=${i} class="here">${a.label[i]} <span class="muted">${number(a.value[i])}</span></b>`
      : a.index[i] < 0 ? html`<span key=${i} class="muted">${a.label[i]}</span>`
      : html`<${Link} key=${i} href=${trialPlace(id, a.index[i])} title=${`trial ${a.index[i]}: ${a.state[i] || 'pending'}`}>${a.label[i]} <span class="muted">${a.value[i] === null ? (a.state[i] || 'pending') : number(a.value[i])}</span><//>`))}</span></td></tr>`)}
    </tbody></table></div><//>`;
}

/** How to run it without mlfnode. @param {{id: string, index: number, attempt?: number, version: unknown}} props */
function ByHand({ id, index, attempt, version }) {
  const [open, setOpen] = useState(false);
  const hand = useData(open ? `command ${id}/${index} ${attempt}` : '', signal => get(sweepPath(id, `/trials/${index}/command`), { signal, query: { attempt } }), version);
  if (!mayAct.value) return html`<${Panel} title="Run it by hand"><p class="pad muted">The command may hold secrets, so a viewer does not see it. Log in as an operator.</p><//>`;
  return html`<${Panel} title="Run it by hand" aside=${html`<button type="button" class="quiet" aria-expanded=${open} onClick=${() => setOpen(!open)}>${open ? 'Hide' : 'Show'} the command</button>`}>
    ${open && html`<${Answer} of=${hand}>${(/** @type {any} */ h) => html`<div class="pad stack"><${Command} text=${h.script} />
      <p class="muted">${h.bundle ? html`Its files have the SHA-256 <code>${h.bundle}</code>. ` : 'It came without files. '}The rest of the environment is that of the shell that submitted the sweep, of which nothing is shown.${h.hidden.length > 0
    && html` Nor are the values of <b>${h.hidden.join(', ')}</b>, which may be secrets.`}</p></div>`}<//>`}<//>`;
}

/** Some places on both sides. @param {any} a */
function around(a) {
  const from = Math.max(0, Math.min(a.at - 3, a.index.length - 7));
  return Array.from({ length: Math.min(7, a.index.length) }, (_, i) => from + i);
}

/** @param {{all: any[], chosen: number|undefined, choose: (n: number) => void}} props */
function Attempts({ all, chosen, choose }) {
  return html`<${Panel} title="Attempts"><div class="scroll"><table class="plain">
    <thead><tr><th scope="col" class="right">#</th><th scope="col">node</th><th scope="col">outcome</th><th scope="col">why</th><th scope="col">started</th><th scope="col" class="right">took</th><th scope="col" class="right opt">CPU</th><th scope="col" class="right opt">memory</th><th scope="col"><span class="hidden">log</span></th></tr></thead>
    <tbody>${all.map(a => html`<tr key=${a.run} aria-current=${a.attempt === chosen ? 'true' : undefined}><td class="right">${a.attempt}</td><td>${a.node && html`<${Link} href=${nodePlace(a.node)}>${a.node}<//>`}</td>
      <td>${a.outcome === 'running' ? html`<${State} state="running" />` : a.outcome}${a.resumed ? html` <span class="tag">from snapshot ${a.resumed}</span>` : null}</td><td class="wrap">${a.class && html`<span class="tag">${a.class}</span> `}${plain((a.reason || '').split('\n')[0])}</td>
      <td><${Time} at=${a.started} /></td><td class="right">${duration(a.resources.wall_seconds)}</td><td class="right opt">${duration(a.resources.cpu_seconds)}</td><td class="right opt">${bytes(a.resources.peak_memory_bytes)}</td>
      <td><button type="button" class="quiet" aria-pressed=${a.attempt === chosen} onClick=${() => choose(a.attempt)}>log</button></td></tr>`)}</tbody></table></div><//>`;
}

/** The files that it left. @param {{id: string, index: number, attempt?: number, version: unknown}} props */
function Files({ id, index, attempt, version }) {
  const list = useData(`files ${id}/${index} ${attempt}`, signal => get(sweepPath(id, `/trials/${index}/files`), { signal, query: { attempt } }), version);
  const files = list.data?.files ?? [], key = { session: sessionKey() };
  if (!files.length) return null;
  const tar = `${PREFIX}${sweepPath(id, '/artifacts')}${search({ index, ...key })}`;
  return html`<${Panel} title="Files" aside=${html`<a href=${tar} download=${`${id}-${index}.tar`}>all as .tar</a>`}><div class="scroll"><table class="plain">
    <thead><tr><th scope="col">file</th><th scope="col" class="right">size</th><th scope="col">changed</th></tr></thead>
    <tbody>${files.slice(0, 200).map((/** @type {any} */ f) => html`<tr key=${f.name}><td><a href=${`${PREFIX}${sweepPath(id, `/trials/${index}/file`)}${search({ name: f.name, attempt, ...key })}`} download>${f.name}</a></td>
      <td class="right">${bytes(f.bytes)}</td><td><${Time} at=${f.time} /></td></tr>`)}</tbody></table></div>
    ${files.length > 200 && html`<p class="pad muted">${count(files.length - 200)} more are in the .tar.</p>`}<//>`;
}
