import Anthropic from '@anthropic-ai/sdk';
import { guarded } from '@acme/guard';

export namespace Clients {
  export const raw = new Anthropic(); // expect: client unguarded
}
export const safe = guarded(new Anthropic()); // expect: client guarded
