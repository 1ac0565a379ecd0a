// A sweep: how far it is immediately, and the rest as soon as its modules are there.
import { useEffect, useState } from 'preact/hooks';
import { html } from './html.js';
import { get, sweepPath } from './api.js';
import { sweep as liveSweep } from './store.js';
import { SweepHead } from './sweephead.js';
import { Answer, Failure, Loading, useData, useSlow, useTitle } from './ui.js';

/** The view of a sweep, once it has been loaded. @type {any} */
let View = null;

/** @param {{id: string, tab: string}} props */
export function SweepPage({ id, tab }) {
  useTitle(id);
  const [error, setError] = useState(/** @type {any} */ (null));
  const [, draw] = useState(0);
  const load = () => {
    setError(null);
    Promise.all([import('./sweepview.js'), styles()]).then(([m]) => {
      View = m.SweepView;
      draw(n => n + 1);
    }, setError);
  };
  useEffect(() => { if (!View) load(); }, []);
  const state = liveSweep(id).value;
  const version = useSlow(state && JSON.stringify([state.succeeded, state.failed, state.cancelled, state.running, state.state, state.count]));
  const info = useData(`sweep ${id}`, signal => get(sweepPath(id), { signal }), version);
  return html`<div class="stack sweep"><${Answer} of=${info}>${(/** @type {any} */ s) => html`<${SweepHead} sweep=${s} state=${state} />
    ${View ? html`<${View} sweep=${state ? { ...s, ...state } : s} version=${version} tab=${tab} />` : error ? html`<${Failure} error=${error} retry=${load} />` : html`<${Loading} />`}`}<//></div>`;
}

/** Loads the style sheet of the view. */
function styles() {
  return new Promise((done, failed) => {
    const link = document.createElement('link');
    link.rel = 'stylesheet';
    link.href = new URL('sweep.css', import.meta.url).href;
    link.onload = done;
    link.onerror = () => failed(new Error('The styles of this page were not found.'));
    document.head.append(link);
  });
}
