import 'reflect-metadata';
import Anthropic from '@anthropic-ai/sdk';
import { container, inject, injectable } from 'tsyringe';
import { guarded } from './guard';

container.register<Anthropic>('Claude', { useFactory: () => new Anthropic() }); // expect: client unguarded
container.register(Anthropic, { useValue: guarded(new Anthropic()) }); // expect: client guarded

@injectable()
export class Writer {
  constructor(@inject('Claude') private client: Anthropic) {}
  write = () => this.client.messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
}

export const once = () => container.resolve(Anthropic).messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call guarded
