export { consume, type ConsumeOptions, type Status } from './consume.js';
export { PubSubError } from './error.js';
export type { Credential } from './http.js';
export type { Filter, Gap, Message, Overflow, Publication, Start } from './model.js';
export { publish, type PublishOptions } from './publish.js';
