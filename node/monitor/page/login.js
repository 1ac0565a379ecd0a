// How a browser logs in: with a link of one use.
import { useState } from 'preact/hooks';
import { html } from './html.js';
import { login, loginProblem } from './store.js';
import { Command, Failure, Panel } from './ui.js';

export function LoginPage() {
  const [text, setText] = useState('');
  const [busy, setBusy] = useState(false);
  const submit = async (/** @type {Event} */ e) => {
    e.preventDefault();
    setBusy(true);
    loginProblem.value = await login(text.trim().replace(/^.*#k=/, ''));
    setBusy(false);
    setText('');
  };
  return html`<div class="login"><${Panel} title="Log in"><div class="body">
    <p>This browser is not logged in. Open the link that <code>mlfnode monitor</code> prints, or paste it here. It works once, within a minute; Enter in that terminal prints a new one.</p>
    <form onSubmit=${submit}><input aria-label="Link of mlfnode monitor" placeholder="the link, or the part after #k=" type="password" autocomplete="off" value=${text} onInput=${(/** @type {any} */ e) => setText(e.target.value)} />
      <button type="submit" class="primary" disabled=${busy || !text.trim()}>Log in</button></form>
    ${loginProblem.value && html`<${Failure} error=${loginProblem.value} />`}
    <p class="muted">For reading only: <code>mlfnode monitor --role viewer</code>. From a laptop, run it there with a token that is made on the master:</p>
    <${Command} text="mlfnode token --role operator" />
  </div><//></div>`;
}
