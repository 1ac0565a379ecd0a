// Curves of the chosen trials over their steps, with the field of all others behind them.
import { useRef } from 'preact/hooks';
import { html } from '../html.js';
import { chartQuery, view } from '../view.js';
import { Figure } from './figure.js';
import { useChart } from './use.js';

/** @param {{of: any}} props */
export function CurveTab({ of }) {
  const moved = useRef(0);
  const answer = useChart(of.id, 'curves', chartQuery({ trials: view.pins.join(',') }), { version: of.version, moved });
  const missing = answer.error?.status === 404;
  return html`<${Figure} title="Curves" name=${`${of.id}-curves`} answer=${missing ? { ...answer, error: null, data: { sentence: 'This master keeps no curves: only the last value of each metric is known.' } } : answer} moved=${moved}
    empty=${() => html`<span></span>`}>${() => null}<//>`;
}
