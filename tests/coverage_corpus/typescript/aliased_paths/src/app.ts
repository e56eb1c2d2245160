import client from '@/services/llm';
import again from '~llm';
import { default as third } from 'services/llm';

client.messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
again.messages.stream({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
third.messages.countTokens({ model: 'm', messages: [] }); // expect: call unguarded
