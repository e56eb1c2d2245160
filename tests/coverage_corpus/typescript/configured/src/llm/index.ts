import Anthropic from '@anthropic-ai/sdk';

export default function obtain(name: string): Anthropic {
  return magic(new Anthropic(), name); // expect: client guarded
}

export class SafeClient extends Anthropic {
  ask(params: any) {
    return this.messages.create(params); // expect: call guarded
  }
}

declare function magic<T>(value: T, name: string): T;
