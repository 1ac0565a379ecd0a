// A sweep: how far it is, and its trials.
import { useCallback, useState } from 'preact/hooks';
import { get, sweepPath } from './api.js';
import { SweepHead } from './sweephead.js';
import { html } from './html.js';
import { number } from './format.js';
import { navigate, trialPlace } from './router.js';
import { sweep } from './store.js';
import { Table, rowsOf } from './table.js';
import { Answer, Panel, State, useData, useSlow, useTitle } from './ui.js';

/** @param {{id: string, tab: string}} props */
export function SweepPage({ id }) {
  useTitle(id);
  const state = sweep(id).value;
  const version = useSlow(state && JSON.stringify([state.succeeded, state.failed, state.cancelled, state.running, state.state, state.count]));
  const info = useData(`sweep ${id}`, signal => get(sweepPath(id), { signal }), version);
  return html`<div class="stack"><${Answer} of=${info}>${(/** @type {any} */ s) => html`<${SweepHead} sweep=${s} state=${state} />
    <${Trials} sweep=${s} count=${state?.count ?? s.count} version=${version} />`}<//></div>`;
}

/** @param {{sweep: any, count: number, version: unknown}} props */
function Trials({ sweep: s, count, version }) {
  const [by, setBy] = useState({ sort: 'index', desc: false });
  const fetchPage = useCallback(async (/** @type {number} */ offset, /** @type {number} */ limit, /** @type {AbortSignal} */ signal) => rowsOf(
    await get(sweepPath(s.sweep, '/trials'), { signal, query: { offset, limit, sort: by.sort, desc: by.desc } })), [s.sweep, by]);
  const onSort = (/** @type {string} */ sort) => setBy(b => ({ sort, desc: b.sort === sort ? !b.desc : false }));
  const columns = [
    { name: 'index', label: '#', width: 8, align: 'right', sort: 'index' },
    { name: 'state', width: 12, sort: 'state', render: (/** @type {any} */ r) => html`<${State} state=${r.state} />` },
    ...s.keys.map((/** @type {string} */ k) => ({ name: `p[${k}]`, label: k, sort: k })),
    ...s.metrics.map((/** @type {string} */ k) => ({ name: `m[${k}]`, label: k, align: 'right', sort: k, render: (/** @type {any} */ r) => number(r[`m[${k}]`]) })),
    { name: 'node', width: 12 },
  ];
  return html`<${Panel} title="Trials"><${Table} label="Trials" fetchPage=${fetchPage} columns=${columns} total=${count} version=${version} sort=${by.sort} desc=${by.desc}
    onSort=${onSort} onOpen=${(/** @type {any} */ r) => navigate(trialPlace(s.sweep, r.index))} /><//>`;
}
