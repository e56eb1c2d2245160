import Anthropic from '@anthropic-ai/sdk';

const { messages, beta: { messages: betaMessages }, completions = null } = new Anthropic(); // expect: client unguarded
const { create, stream: open } = messages;
let batches;
({ batches } = messages);

export async function all(params) {
  await messages.create(params); // expect: call unguarded
  await betaMessages.toolRunner({ ...params, tools: [] }); // expect: call unguarded
  await create.call(messages, params); // expect: call unguarded
  await open.apply(messages, [params]); // expect: call unguarded
  await batches.retrieve('id'); // expect: call unguarded
  return completions?.create(params); // expect: call unguarded
}
