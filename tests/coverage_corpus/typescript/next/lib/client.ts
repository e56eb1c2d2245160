import 'server-only';
import Anthropic from '@anthropic-ai/sdk';

export const client = new Anthropic(); // expect: client unguarded
