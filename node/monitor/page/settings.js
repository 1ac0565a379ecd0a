// Settings of this browser.
import { effect, signal } from '@preact/signals';
import { html } from './html.js';
import { bytes, duration } from './format.js';
import { get } from './api.js';
import { singleKeys } from './keys.js';
import { logout, session } from './store.js';
import { Answer, Panel, useData, useTitle } from './ui.js';

/** A choice that is kept in this browser. @param {string} name @param {string} otherwise */
function kept(name, otherwise) {
  const s = signal(localStorage.getItem(name) ?? otherwise);
  effect(() => localStorage.setItem(name, s.value));
  return s;
}

export const theme = kept('mlf-theme', 'system');
const density = kept('mlf-density', 'normal');
const zone = kept('mlf-zone', 'local');
effect(() => { document.documentElement.dataset.density = density.value; });
effect(() => localStorage.setItem('mlf-keys', singleKeys.value ? 'on' : 'off'));

/** Goes from the theme of the system to light, to dark, and back. */
export function turnTheme() {
  theme.value = { system: 'light', light: 'dark', dark: 'system' }[theme.value] ?? 'system';
}

export function SettingsPage() {
  useTitle('Settings');
  const node = useData('node', signal => get('/node', { signal }));
  return html`<div class="stack"><h1>Settings</h1><div class="columns">
    <${Panel} title="This browser"><div class="body form">
      <${Choice} label="Theme" of=${theme} from=${{ system: 'same as the system', light: 'light', dark: 'dark' }} />
      <${Choice} label="Rows" of=${density} from=${{ compact: 'compact', normal: 'normal', roomy: 'roomy' }} />
      <${Choice} label="Times" of=${zone} from=${{ local: 'local', utc: 'UTC' }} />
      <span>Keys</span><label><input type="checkbox" checked=${singleKeys.value} onChange=${(/** @type {any} */ e) => { singleKeys.value = e.target.checked; }} /> single keys such as <kbd>?</kbd> and <kbd>g</kbd> <kbd>s</kbd></label>
    </div><//>
    <${Panel} title="Session"><div class="body stack">
      <p>${session.value?.role === 'viewer' ? 'This session only reads.' : `This session may act (${session.value?.role ?? '–'}).`} It ends after 12 hours without a request, after a week, or with <code>mlfnode monitor</code>.</p>
      <div><button type="button" onClick=${logout}>Log out</button></div>
    </div><//>
    <${Panel} title="Node that answers"><${Answer} of=${node}>${(/** @type {any} */ n) => html`<div class="body form">
      <span class="muted">name</span><span>${n.node || 'this machine'} ${n.role ? `(${n.role})` : ''}</span>
      <span class="muted">version</span><span>${n.version}</span>
      <span class="muted">keeps</span><span>${n.retention.sweeps} ended sweeps${n.retention.age ? `, for at most ${duration(n.retention.age / 1e9)}` : ''}</span>
      ${(n.store ?? []).map((/** @type {any} */ s) => html`<span key=${s.name} class="muted">${s.name}</span><span>${bytes(s.bytes)}${s.limit > 0 ? ` of ${bytes(s.limit)}` : ''}</span>`)}
    </div>`}<//><//>
  </div></div>`;
}

/** @param {{label: string, of: any, from: Record<string, string>}} props */
function Choice({ label, of, from }) {
  const id = `set-${label}`;
  return html`<label for=${id}>${label}</label><select id=${id} value=${of.value} onChange=${(/** @type {any} */ e) => { of.value = e.target.value; }}>
    ${Object.entries(from).map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}</select>`;
}
