import Anthropic from '@anthropic-ai/sdk';
import { guarded } from '@acme/guard';

const services = {
  llm: { raw: new Anthropic(), safe: guarded(new Anthropic()) }, // expect: client unguarded, client guarded
  ask(params: any) {
    return this.llm.raw.messages.create(params); // expect: call unguarded
  },
};
const copy = { ...services, extra: 1 };

export const viaSafe = (params: any) => copy.llm.safe.messages.create(params); // expect: call guarded
export const viaKey = (params: any) => services['llm'].raw.messages['create'](params); // expect: call unguarded
