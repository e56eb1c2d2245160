import { Clients, safe } from '@shop/llm';

export const run = async (params: any) => {
  await Clients.raw.messages.create(params); // expect: call unguarded
  await safe.messages.create(params); // expect: call guarded
};
