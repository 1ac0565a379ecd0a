// The page begins here: it chooses what is shown by the path.
import { render } from 'preact';
import { html } from './html.js';
import { ComparePage } from './compare.js';
import { NodePage, NodesPage } from './nodes.js';
import { OverviewPage } from './overview.js';
import { Link, parts, place } from './router.js';
import { SettingsPage } from './settings.js';
import { Shell, useAppearance } from './shell.js';
import { session, start } from './store.js';
import { SweepPage } from './sweep.js';
import { SweepsPage } from './sweeps.js';
import { TrialPage } from './trial.js';
import { Empty, Loading, useTitle } from './ui.js';

let logins = 0, loggedIn = false; // a page that was shown is kept under the login, and made again behind it

function App() {
  useAppearance();
  if (session.value && !loggedIn) logins++;
  loggedIn = !!session.value;
  return html`<${Shell}>${logins ? html`<${Place} key=${logins} />` : session.value === undefined && html`<${Loading} />`}<//>`;
}

function Place() {
  const [first, id, sub, index] = parts(place.value.path);
  if (!first) return html`<${OverviewPage} />`;
  if (first === 'sweeps' && !id) return html`<${SweepsPage} />`;
  if (first === 'sweeps' && sub === 'trials' && index) return html`<${TrialPage} key=${`${id}/${index}`} id=${id} index=${Number(index)} />`;
  if (first === 'sweeps' && sub === 'compare') return html`<${ComparePage} key=${id} id=${id} />`;
  if (first === 'sweeps') return html`<${SweepPage} key=${id} id=${id} tab=${sub ?? ''} />`;
  if (first === 'nodes' && !id) return html`<${NodesPage} />`;
  if (first === 'nodes') return html`<${NodePage} key=${id} name=${id} />`;
  if (first === 'settings') return html`<${SettingsPage} />`;
  return html`<${Nowhere} path=${place.value.path} />`;
}

/** @param {{path: string}} props */
function Nowhere({ path }) {
  useTitle('Not found');
  return html`<${Empty} title="There is no such page"><p class="wrap">${path}</p><p><${Link} href="/">Overview<//> · <${Link} href="/sweeps">Sweeps<//></p><//>`;
}

addEventListener('hashchange', () => { if (location.hash.startsWith('#k=')) start(); });
start();
render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById('app')));
