import { ChatAnthropic } from '@langchain/anthropic';
import { ChatOpenAI } from '@langchain/openai';
import { ChatPromptTemplate } from '@langchain/core/prompts';

const llm = new ChatAnthropic({ model: 'claude-haiku-4-5' }); // expect: client unguarded
const other = new ChatOpenAI({ model: 'gpt-5' });
const withTools = llm.bindTools([]);
const chain = ChatPromptTemplate.fromTemplate('{q}').pipe(llm);

export async function run() {
  await llm.invoke('hello'); // expect: call unguarded
  await withTools.stream('hello'); // expect: call unguarded
  await chain.invoke({ q: 'hello' }); // expect: call unguarded
  await other.invoke('hello');
}
