// What the trials of a sweep print, all in one: those that are selected, each line with its trial.
import { useMemo } from 'preact/hooks';
import { html } from './html.js';
import { search } from './api.js';
import { count } from './format.js';
import { LogView } from './log.js';
import { Link, trialPlace } from './router.js';
import { SweepLog } from './sweeplog.js';
import { Command, Panel } from './ui.js';
import { splitFilter, view } from './view.js';

/** @param {{of: any}} props */
export function LogsTab({ of }) {
  const { id } = of, where = view.where.map(splitFilter), some = where.length > 0;
  const source = useMemo(() => ({
    open: (/** @type {string} */ stream) => new SweepLog(id, where, stream),
    name: id,
    label: (/** @type {any} */ line) => html`<${Link} class="of" href=${trialPlace(id, line.index)} title=${`Trial ${line.index}`}>${count(line.index)}<//>`,
    empty: (/** @type {boolean} */ ended) => (ended
      ? `${some ? 'None of the selected trials' : 'No trial'} has printed anything that is still stored. Output that all sweeps together may keep is bounded by retention.logs; the oldest goes first.`
      : `${some ? 'None of the selected trials' : 'No trial'} has printed anything yet. Lines appear here as they are printed.`),
  }), [id, search(where)]);
  return html`<${Panel} title="Logs" aside=${html`<span>${some ? 'the selected trials' : 'all trials'}, each line with its trial</span>`}>
    <${LogView} source=${source} />
    <div class="pad"><${Command} text=${`mlfnode logs ${id} -f`} /></div>
  <//>`;
}
