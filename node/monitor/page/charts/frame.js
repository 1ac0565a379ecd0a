// The frame that every chart has: its heading, its sentence, and the same as a table.
import { html } from '../html.js';

/** @param {{title: string, sentence?: string, children?: any}} props */
export function Frame({ title, sentence, children }) {
  return html`<figure class="chart"><figcaption><h3>${title}</h3>${sentence && html`<p>${sentence}</p>`}</figcaption>${children}</figure>`;
}
