// What is around every page: the bar with where one is and how live it is, the banner, the places, the login over a kept page.
import { useEffect } from 'preact/hooks';
import { html } from './html.js';
import { ago, roughly, time } from './format.js';
import { Dialogs } from './dialog.js';
import { useKeys } from './keys.js';
import { LoginPage } from './login.js';
import { openHelp, openPalette } from './palette.js';
import { Link, navigate, nodePlace, parts, place, sweepPlace, trialPlace } from './router.js';
import { freeze, frozen, line, logout, now, overview, renewed, retryNow, session, spoken } from './store.js';
import { theme, turnTheme } from './settings.js';

const PLACES = [['Overview', '/', 'o'], ['Sweeps', '/sweeps', 's'], ['Nodes', '/nodes', 'n'], ['Settings', '/settings', ',']];

/** @param {{children?: any}} props */
export function Shell({ children }) {
  const at = place.value.path;
  useKeys([
    { key: ':', text: 'go to or do something (also Ctrl-K)', run: openPalette },
    { key: '?', text: 'show these keys', run: openHelp },
    { key: '/', text: 'search or filter what is shown', run: () => /** @type {HTMLElement|null} */ (document.querySelector('main [data-search]'))?.focus() },
    ...PLACES.map(([name, path, key]) => ({ key: `g ${key}`, text: `go to ${name}`, run: () => navigate(path) })),
    { key: ' ', text: 'stop what moves, or let it go on', run: () => freeze(!frozen.value) },
    { key: 'Escape', text: 'one step back', run: () => navigate(up(at)), hidden: at === '/' },
  ], [at]);
  const active = (/** @type {string} */ path) => (path === '/' ? at === '/' : at === path || at.startsWith(`${path}/`));
  const places = () => PLACES.map(([name, path]) => html`<${Link} key=${path} href=${path} aria-current=${active(path) ? 'page' : undefined}>${name}<//>`);
  return html`<a class="skip" href="#main">Skip to the content</a>
    <header class="bar">
      <${Link} class="brand" href="/">mlfnode<//>
      <nav class="places" aria-label="Places">${places()}</nav>
      <${Crumbs} path=${at} />
      <button type="button" class="goto" onClick=${openPalette} aria-label="Go to or do something"><kbd>:</kbd> <span>go to or do …</span></button>
      <${LiveDot} />
      <button type="button" class="quiet" onClick=${turnTheme} title="Light or dark" aria-label=${`Theme: ${theme.value}`}>◐</button>
      ${session.value && html`<span class="role muted">${session.value.role}</span><button type="button" class="quiet role" onClick=${logout}>Log out</button>`}
      <button type="button" class="quiet" onClick=${openHelp} aria-label="Keys and help">?</button>
    </header>
    <${Banner} />
    <main id="main" tabindex="-1">${children}</main>
    <nav class="tabbar" aria-label="Places">${places()}</nav>
    ${session.value === null && html`<div class="overlay"><${LoginPage} /></div>`}
    <${Dialogs} />
    <div class="hidden" role="status" aria-live="polite">${spoken.value}</div>`;
}

/** The place above another one. @param {string} path */
function up(path) {
  const all = parts(path);
  if (all[0] === 'sweeps' && all[2] === 'trials') return sweepPlace(all[1]);
  if (all.length > 1 && (all[0] === 'sweeps' || all[0] === 'nodes')) return `/${all[0]}`;
  return '/';
}

/** @param {{path: string}} props */
function Crumbs({ path }) {
  const all = parts(path), crumbs = [];
  if (all[0] === 'sweeps' && all[1]) crumbs.push([all[1], sweepPlace(all[1])]);
  if (all[0] === 'sweeps' && all[2] === 'trials' && all[3]) crumbs.push([all[3], trialPlace(all[1], all[3])]);
  if (all[0] === 'nodes' && all[1]) crumbs.push([all[1], nodePlace(all[1])]);
  if (!crumbs.length) return null;
  return html`<nav aria-label="Breadcrumb"><ol class="crumbs">${crumbs.map(([name, to], i) => html`<li key=${to}>${i === crumbs.length - 1
    ? html`<span aria-current="page">${name}</span>` : html`<${Link} href=${to}>${name}<//>`}</li>`)}</ol></nav>`;
}

/** How live the page is. */
function LiveDot() {
  const { condition, at } = line.value;
  const texts = { live: 'live', connecting: 'catching up', lost: 'not reached', refused: 'not reached', paused: frozen.value ? 'stopped by you' : 'resting' };
  const text = session.value === null ? 'logged out' : texts[condition];
  return html`<span class=${`line ${condition}`} data-line=${condition}><span class="dot" aria-hidden="true"></span><span>${text}</span>
    ${condition !== 'live' && at > 0 && html`<span class="since">${time(at)}</span>`}</span>`;
}

/** What keeps the page from being up to date. */
function Banner() {
  const { condition, since, at, retry, why } = line.value;
  const problem = overview.value?.problem;
  if (session.value && condition === 'lost' && now.value - since > 1500) {
    return html`<div class="banner" role="status"><span><strong>Not reached since ${time(since)}</strong>${why && `: ${why}`}${at > 0 && ` · showing ${time(at)}`}
      · next try ${retry > now.value ? `in ${roughly((retry - now.value) / 1000)}` : 'now'}</span><button type="button" onClick=${retryNow}>Try now</button></div>`;
  }
  if (frozen.value) {
    return html`<div class="banner" role="status"><span>Stopped by you; showing what was ${ago(at || since, now.value)}</span><button type="button" onClick=${() => freeze(false)}>Go on</button></div>`;
  }
  if (renewed.value) {
    return html`<div class="banner" role="status"><span><strong>${renewed.value}</strong> It may show some things wrongly until it is loaded again. For a newer page, start <code>mlfnode monitor</code> again, too.</span>
      <button type="button" onClick=${() => location.reload()}>Reload</button></div>`;
  }
  if (problem) return html`<div class="banner" role="status"><span><strong>Nothing runs:</strong> ${problem}</span></div>`;
  return null;
}

/** Sets the theme and density of the document. */
export function useAppearance() {
  const chosen = theme.value;
  useEffect(() => {
    const dark = matchMedia('(prefers-color-scheme: dark)');
    const set = () => { document.documentElement.dataset.theme = chosen === 'system' ? (dark.matches ? 'dark' : 'light') : chosen; };
    set();
    dark.addEventListener('change', set);
    return () => dark.removeEventListener('change', set);
  }, [chosen]);
}
