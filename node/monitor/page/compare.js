// A comparison of two to five trials of a sweep: what differs.
import { useEffect, useState } from 'preact/hooks';
import { get, sweepPath } from './api.js';
import { plain } from './ansi.js';
import { html } from './html.js';
import { duration, number } from './format.js';
import { Log } from './logstream.js';
import { Link, sweepPlace, trialPlace } from './router.js';
import { getTrial } from './trial.js';
import { setView, view } from './view.js';
import { Answer, Empty, Panel, State, Time, useData, useTitle } from './ui.js';

const LINES = 4000; // of the end of each log that are compared

/** @param {{id: string}} props */
export function ComparePage({ id }) {
  useTitle(`Compare ${id}`);
  const pins = view.pins;
  const [text, setText] = useState('');
  const all = useData(pins.length ? `compare ${id} ${pins}` : '', signal => Promise.all(pins.map(i => getTrial(id, i, signal))));
  const sweep = useData(`sweep ${id}`, signal => get(sweepPath(id), { signal }));
  useEffect(() => { // trials that do not exist are not kept
    if (all.data || !pins.length) sessionStorage.setItem(`mlf-compare ${id}`, pins.join(','));
  }, [all.data, String(pins)]);
  const add = (/** @type {Event} */ e) => {
    e.preventDefault();
    const more = text.split(/[\s,]+/).filter(Boolean).map(Number).filter(n => Number.isInteger(n) && n >= 0);
    setView({ pins: [...new Set([...pins, ...more])].slice(-5) });
    setText('');
  };
  return html`<div class="stack"><div class="head"><h1>Compare trials of <${Link} href=${sweepPlace(id)}>${id}<//></h1>
      <form class="actions" onSubmit=${add}><input data-search aria-label="Number of a trial" inputmode="numeric" placeholder="number of a trial" value=${text} onInput=${(/** @type {any} */ e) => setText(e.target.value)} /><button type="submit">Add</button></form></div>
    ${all.error && html`<div class="actions">${pins.map(i => html`<button key=${i} type="button" onClick=${() => remove(i)}>Remove ${i}</button>`)}</div>`}
    ${pins.length === 0 ? html`<${Empty} title="Choose two to five trials"><p>Add them by their numbers here, or with Compare on the page of a trial.</p><//>`
      : html`<${Answer} of=${all}>${(/** @type {any[]} */ trials) => html`<${Differences} id=${id} trials=${trials} sweep=${sweep.data} />
        ${trials.length > 1 && html`<${LogDiff} id=${id} a=${trials[0]} b=${trials[1]} />`}`}<//>`}
  </div>`;
}

const remove = (/** @type {number} */ i) => setView({ pins: view.pins.filter(p => p !== i) });

/** @param {{id: string, trials: any[], sweep: any}} props */
function Differences({ id, trials, sweep }) {
  const keys = sweep?.keys ?? Object.keys(trials[0].params), metrics = sweep?.metrics ?? Object.keys(trials[0].metrics);
  const differs = (/** @type {string} */ k) => trials.some(t => String(t.params[k]) !== String(trials[0].params[k]));
  const different = keys.filter(differs), same = keys.filter((/** @type {string} */ k) => !differs(k));
  const base = trials[0];
  const row = (/** @type {string} */ name, /** @type {(t: any) => any} */ cell, kind = '') => html`<tr key=${name}><th scope="row">${name}</th>${trials.map(t => html`<td key=${t.index} class=${kind}>${cell(t)}</td>`)}</tr>`;
  return html`<${Panel} title="What differs" aside=${same.length > 0 && html`<span>the same in all: ${same.map((/** @type {string} */ k) => `${k} ${base.params[k]}`).join(', ')}</span>`}>
    <div class="scroll"><table class="plain"><thead><tr><th scope="col"><span class="hidden">name</span></th>${trials.map((t, n) => html`<th key=${t.index} scope="col"><span class=${`pin pin${n + 1}`} aria-hidden="true">●</span> <${Link} href=${trialPlace(id, t.index)}>${t.index}<//>
      <button type="button" class="quiet" aria-label=${`Remove ${t.index}`} onClick=${() => remove(t.index)}>✕</button></th>`)}</tr></thead>
    <tbody>${row('state', t => html`<${State} state=${t.state} />`)}
      ${different.map((/** @type {string} */ k) => row(k, t => html`<b>${String(t.params[k])}</b>`))}
      ${metrics.map((/** @type {string} */ m) => row(m, t => html`${number(t.metrics[m])} ${t !== base && typeof t.metrics[m] === 'number' && typeof base.metrics[m] === 'number' && html`<span class="muted">${signed(t.metrics[m] - base.metrics[m])}</span>`}`))}
      ${row('took', t => duration(t.wall_seconds))}${row('node', t => t.node || '–')}${row('started', t => html`<${Time} at=${t.started} />`)}
    </tbody></table></div>
    ${different.length === 0 && trials.length > 1 && html`<p class="pad muted">They have the same parameters.</p>`}<//>`;
}

const signed = (/** @type {number} */ d) => `${d >= 0 ? '+' : '−'}${number(Math.abs(d))}`;

/** What the logs of two trials have that the other has not. @param {{id: string, a: any, b: any}} props */
function LogDiff({ id, a, b }) {
  const [open, setOpen] = useState(false);
  const diff = useData(open ? `diff ${id} ${a.index} ${b.index}` : '', async signal => {
    const [left, right] = await Promise.all([a, b].map(async t => {
      const log = new Log(id, t.index);
      await log.tail(signal);
      return log.lines.slice(-LINES).map(l => plain(l.text));
    }));
    return compareLines(left, right);
  });
  return html`<${Panel} title=${`Logs of ${a.index} and ${b.index}`} aside=${!open && html`<button type="button" onClick=${() => setOpen(true)}>Compare logs</button>`}>
    ${open && html`<${Answer} of=${diff}>${(/** @type {any[]} */ lines) => (lines.length ? html`<div class="log wraps diff" tabindex="0" role="group" aria-label="Lines that differ"><div class="lines">${lines.map((l, i) => html`<div key=${i} class=${`ln ${l.side}`}><span class="at">${l.side === 'left' ? `− ${a.index}` : `+ ${b.index}`}</span>${l.text}</div>`)}</div></div>`
      : html`<p class="pad muted">They are the same.</p>`)}<//>`}<//>`;
}

/**
 * Lines of one side alone, in order: by the longest run of lines that both have behind the common beginning, found greedily by the next
 * place of a line in the other.
 * @param {string[]} left @param {string[]} right
 */
export function compareLines(left, right) {
  /** @type {Map<string, number[]>} */
  const places = new Map();
  right.forEach((line, i) => places.set(line, [...(places.get(line) ?? []), i].slice(-64)));
  /** @type {{side: 'left'|'right', text: string}[]} */
  const out = [];
  let j = 0;
  for (const line of left) {
    const at = (places.get(line) ?? []).find(p => p >= j && p < j + 200);
    if (at === undefined) out.push({ side: 'left', text: line });
    else {
      for (; j < at; j++) out.push({ side: 'right', text: right[j] });
      j++;
    }
  }
  for (; j < right.length; j++) out.push({ side: 'right', text: right[j] });
  return out.slice(0, 2000);
}
