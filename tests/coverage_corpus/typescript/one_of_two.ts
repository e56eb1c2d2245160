// Guarded in production only: so there is a way without.
import Anthropic from '@anthropic-ai/sdk';
import { guarded } from '@acme/guard';

const raw = new Anthropic(); // expect: client unguarded
const client = process.env.GUARD ? guarded(raw) : raw;
client.messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded

let assigned: Anthropic;
if (process.env.GUARD) assigned = guarded(new Anthropic()); // expect: client guarded
else assigned = new Anthropic(); // expect: client unguarded
assigned.messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
