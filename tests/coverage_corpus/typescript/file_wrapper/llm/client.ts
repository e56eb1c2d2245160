import Anthropic from '@anthropic-ai/sdk';

function harden(client: Anthropic): Anthropic {
  return client;
}

export const client = harden(new Anthropic()); // expect: client guarded
export const other = new Anthropic(); // expect: client unguarded
