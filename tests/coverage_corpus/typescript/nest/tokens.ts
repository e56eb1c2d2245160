export const ANTHROPIC = Symbol('ANTHROPIC');
export const RAW = 'RAW_CLIENT';
