export { anthropic as claude } from './vendor.js';
export * from './factory';
export { default as Base } from './base';
