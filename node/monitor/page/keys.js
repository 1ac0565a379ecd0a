// Keys of the page. Views add theirs while they are shown. Single keys can be switched off in the settings.
import { signal } from '@preact/signals';
import { useEffect } from 'preact/hooks';
import { isOpen } from './dialog.js';

/** @typedef {{key: string, text: string, run: (e: KeyboardEvent) => void, hidden?: boolean}} Binding */

/** @type {import('@preact/signals').Signal<Binding[][]>} */
const bindings = signal([]);

/** The keys that work now, those of the view last. */
export const all = () => bindings.value.flat();

/** Whether single keys work. */
export const singleKeys = signal(localStorage.getItem('mlf-keys') !== 'off');

/** Adds keys while a component is shown. A key is its name, or `g o` for two in a row. @param {Binding[]} mine @param {any[]} deps */
export function useKeys(mine, deps) {
  useEffect(() => {
    bindings.value = [...bindings.peek(), mine];
    return () => { bindings.value = bindings.peek().filter(b => b !== mine); };
  }, deps);
}

let before = '', at = 0;

/** @param {KeyboardEvent} e */
function pressed(e) {
  const target = /** @type {HTMLElement} */ (e.target);
  const command = (e.ctrlKey || e.metaKey) && e.key.toLowerCase() === 'k';
  if (e.defaultPrevented || isOpen()) return;
  if (command) {
    e.preventDefault();
    all().find(b => b.key === ':')?.run(e);
    return;
  }
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (target.closest?.('input, textarea, select, [contenteditable]')) {
    if (e.key === 'Escape') target.blur();
    return;
  }
  if (!singleKeys.value && e.key.length === 1) return;
  if (e.key === ' ' && target.closest?.('button, a, summary')) return;
  const pair = Date.now() - at < 1200 ? `${before} ${e.key}` : '';
  const found = all().reverse();
  const hit = found.find(b => b.key === pair) ?? found.find(b => b.key === e.key);
  before = e.key;
  at = Date.now();
  if (!hit) return;
  e.preventDefault();
  before = '';
  hit.run(e);
}

addEventListener('keydown', pressed);
