// Dialogs: one at a time, over everything, modal as the browser knows it. Toasts say what was done.
import { signal } from '@preact/signals';
import { useEffect, useRef, useState } from 'preact/hooks';
import { html } from './html.js';
import { announce } from './store.js';
import { Failure } from './ui.js';

/** The dialog that is shown. @type {import('@preact/signals').Signal<any>} */
const shown = signal(null);

/** @type {import('@preact/signals').Signal<{id: number, text: string, failed: boolean}[]>} */
const toasts = signal([]);
let lastToast = 0;

/** Says for some seconds what was done. @param {string} text @param {boolean} [failed] */
export function toast(text, failed = false) {
  const id = ++lastToast;
  toasts.value = [...toasts.value.slice(-3), { id, text, failed }];
  announce(text);
  setTimeout(() => { toasts.value = toasts.value.filter(t => t.id !== id); }, failed ? 12_000 : 6_000);
}

/** Shows a dialog: a component that gets `close`. @param {any} content markup @param {{label: string, kind?: string}} options */
export function showDialog(content, options) {
  shown.value = { content, ...options };
}

export const closeDialog = () => { shown.value = null; };

/** Whether a dialog is open. */
export const isOpen = () => shown.value !== null;

/** Where dialogs and toasts appear. */
export function Dialogs() {
  const d = shown.value;
  return html`${d && html`<${Modal} key=${d.label} label=${d.label} kind=${d.kind}>${d.content}<//>`}
    <div class="toasts">${toasts.value.map(t => html`<div key=${t.id} class=${`notice ${t.failed ? 'failed' : ''}`}>${t.text}</div>`)}</div>`;
}

/** @param {{label: string, kind?: string, children?: any}} props */
function Modal({ label, kind = '', children }) {
  const box = useRef(/** @type {HTMLDialogElement|null} */ (null));
  useEffect(() => {
    const back = /** @type {HTMLElement|null} */ (document.activeElement);
    box.current?.showModal();
    return () => back?.focus?.();
  }, []);
  const outside = (/** @type {MouseEvent} */ e) => { if (e.target === box.current) closeDialog(); };
  return html`<dialog ref=${box} class=${kind} aria-label=${label} onClose=${closeDialog} onCancel=${closeDialog} onMouseDown=${outside}>${children}</dialog>`;
}

/**
 * Asks before something is done. `run` gives what to say afterwards.
 * @param {{title: string, text?: any, verb: string, danger?: boolean, run: () => Promise<string>, children?: any, ready?: boolean}} props
 */
export function Confirm({ title, text, verb, danger, run, children, ready = true }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(/** @type {any} */ (null));
  const first = useRef(/** @type {HTMLButtonElement|null} */ (null));
  const go = async (/** @type {Event} */ e) => {
    e.preventDefault();
    if (busy || !ready) return;
    setBusy(true);
    setError(null);
    try {
      toast(await run());
      closeDialog();
    } catch (err) {
      setError(err);
      setBusy(false);
    }
  };
  useEffect(() => { if (!children) first.current?.focus(); }, []);
  return html`<form onSubmit=${go}>
    <div class="body"><h2>${title}</h2>${text && html`<p>${text}</p>`}${children}${error && html`<${Failure} error=${error} />`}</div>
    <footer><button type="button" onClick=${closeDialog}>Not now</button>
    <button ref=${first} type="submit" class=${danger ? 'danger' : 'primary'} disabled=${busy || !ready}>${busy ? 'Working …' : verb}</button></footer>
  </form>`;
}
