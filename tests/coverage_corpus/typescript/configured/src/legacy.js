export const client = globalThis.legacy.client();
