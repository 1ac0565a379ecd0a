// Markup in template strings, bound to Preact. Texts become text nodes: nothing that a user wrote is ever read as markup.
import { h, Fragment } from 'preact';
import htm from 'htm';

export const html = htm.bind(h);
export { Fragment };
