// The palette: goes to sweeps, trials, nodes and places by a few letters, and does what can be done. And the list of keys.
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { get, sweepPath } from './api.js';
import { askCancel, askExtend, askPause, askResume, askRetry } from './actions.js';
import { closeDialog, showDialog } from './dialog.js';
import { html } from './html.js';
import { all } from './keys.js';
import { navigate, nodePlace, parts, place, sweepPlace, trialPlace } from './router.js';
import { mayAct } from './store.js';

export const openPalette = () => showDialog(html`<${Palette} />`, { label: 'Go to or do something', kind: 'palette' });
export const openHelp = () => showDialog(html`<${Help} />`, { label: 'Keys' });

/**
 * How well letters fit a text: they have to come in order; the beginning of a word counts more. 0 is not at all.
 * @param {string} letters @param {string} text
 */
export function fits(letters, text) {
  const low = text.toLowerCase();
  let from = 0, score = 1;
  for (const c of letters.toLowerCase().replace(/\s+/g, '')) {
    const found = low.indexOf(c, from);
    if (found < 0) return 0;
    score += found === from ? 3 : /\W/.test(low[found - 1] ?? ' ') ? 2 : 0.5;
    from = found + 1;
  }
  return score - text.length / 200;
}

/** @typedef {{text: string, kind: string, run: () => void}} Item */

/** @param {any} s the sweep that is shown @returns {Item[]} */
function actionsOf(s) {
  if (!s || !mayAct.value) return [];
  return [
    s.state === 'running' && ['Pause', askPause], s.state === 'paused' && ['Resume', askResume], s.failed > 0 && ['Retry failed trials of', askRetry],
    s.state !== 'cancelled' && ['Extend', askExtend], (s.state === 'running' || s.state === 'paused') && ['Cancel', askCancel],
  ].filter(Boolean).map((/** @type {any} */ [verb, ask]) => ({ text: `${verb} ${s.sweep}`, kind: 'action', run: () => ask(s) }));
}

function Palette() {
  const [text, setText] = useState(''), [chosen, setChosen] = useState(0);
  const [known, setKnown] = useState(/** @type {{sweeps: any[], nodes: any[], shown: any}} */ ({ sweeps: [], nodes: [], shown: null }));
  const list = useRef(/** @type {HTMLUListElement|null} */ (null));
  const here = parts(place.value.path), id = here[0] === 'sweeps' ? here[1] : '';
  useEffect(() => {
    const control = new AbortController(), { signal } = control;
    get('/sweeps', { signal, query: { limit: 200 } }).then(l => setKnown(k => ({ ...k, sweeps: l.sweeps })), () => {});
    get('/members', { signal }).then(nodes => setKnown(k => ({ ...k, nodes })), () => {});
    if (id) get(sweepPath(id), { signal }).then(shown => setKnown(k => ({ ...k, shown })), () => {});
    return () => control.abort();
  }, []);
  const items = useMemo(() => {
    /** @type {Item[]} */
    const found = [
      ...actionsOf(known.shown),
      ...[['Overview', '/'], ['Sweeps', '/sweeps'], ['Nodes', '/nodes'], ['Settings', '/settings']].map(([name, to]) => ({ text: name, kind: 'place', run: () => navigate(to) })),
      ...known.sweeps.map(s => ({ text: s.name ? `${s.sweep} ${s.name}` : s.sweep, kind: `sweep, ${s.state}`, run: () => navigate(sweepPlace(s.sweep)) })),
      ...known.nodes.map(n => ({ text: n.node, kind: `node, ${n.state}`, run: () => navigate(nodePlace(n.node)) })),
    ];
    const trial = /^(?:(.+)\/)?(\d+)$/.exec(text.trim()), of = trial?.[1] ?? id;
    if (trial && of) found.unshift({ text: `${of}/${trial[2]}`, kind: 'trial', run: () => navigate(trialPlace(of, trial[2])) });
    return found.map(i => ({ ...i, score: fits(text, i.text) })).filter(i => i.score > 0 || i.kind === 'trial').sort((a, b) => (text ? b.score - a.score : 0)).slice(0, 50);
  }, [text, known, id]);
  const at = Math.min(chosen, items.length - 1);
  useEffect(() => list.current?.children[at]?.scrollIntoView({ block: 'nearest' }), [at]);
  const run = (/** @type {Item|undefined} */ i) => {
    if (!i) return;
    closeDialog();
    i.run();
  };
  const key = (/** @type {KeyboardEvent} */ e) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[e.key];
    if (step) setChosen(Math.max(0, Math.min(items.length - 1, at + step)));
    else if (e.key === 'Enter') run(items[at]);
    else return;
    e.preventDefault();
  };
  return html`<input autofocus role="combobox" aria-expanded="true" aria-controls="palette-list" aria-activedescendant=${items[at] ? `palette-${at}` : undefined} aria-label="Go to or do something"
      placeholder="a sweep, a node, the number of a trial, an action" spellcheck="false" value=${text} onKeyDown=${key}
      onInput=${(/** @type {any} */ e) => { setText(e.target.value); setChosen(0); }} />
    <ul id="palette-list" role="listbox" aria-label="What fits" ref=${list}>${items.map((i, n) => html`<li key=${n} id=${`palette-${n}`} role="option" aria-selected=${n === at}
      onClick=${() => run(i)} onMouseMove=${() => setChosen(n)}><span>${i.text}</span><span class="muted">${i.kind}</span></li>`)}
      ${items.length === 0 && html`<li role="option" aria-selected="false" aria-disabled="true"><span class="muted">Nothing fits.</span></li>`}</ul>`;
}

const NAMES = { ' ': 'Space', Escape: 'Esc', ArrowLeft: '←', ArrowRight: '→' };

function Help() {
  return html`<div class="body"><h2>Keys</h2>
    <div class="keys">${all().filter(b => !b.hidden).map(b => html`<span key=${b.key}>${b.key === ' ' ? html`<kbd>Space</kbd>` : b.key.split(' ').map(k => html`<kbd key=${k}>${NAMES[k] ?? k}</kbd> `)}</span><span>${b.text}</span>`)}
      <span><kbd>j</kbd> <kbd>k</kbd></span><span>next and previous row of a table; <kbd>Enter</kbd> opens it</span></div>
    <p class="muted">Single keys can be switched off in the settings.</p></div>
    <footer><button type="button" autofocus onClick=${closeDialog}>Close</button></footer>`;
}
