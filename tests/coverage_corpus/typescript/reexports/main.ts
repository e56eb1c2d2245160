import { build, claude } from './llm';
import * as llm from './llm/index';

export async function main() {
  await claude.messages.create({ model: 'claude-x', max_tokens: 1, messages: [] }); // expect: call unguarded
  const built = build('k');
  await built.beta.messages.countTokens({ model: 'claude-x', messages: [] }); // expect: call unguarded
  await llm.claude.messages.batches.create({ requests: [] }); // expect: call unguarded
}
