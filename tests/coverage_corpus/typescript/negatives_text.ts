// const client = new Anthropic(); client.messages.create({});
/* import Anthropic from '@anthropic-ai/sdk'; new Anthropic() */
const example = `
  import Anthropic from '@anthropic-ai/sdk';
  const client = new Anthropic();
  await client.messages.create({ model: 'claude' });
`;
const url = 'https://api.anthropic.com/v1/messages';
console.log(example, url, "new Anthropic().messages.create()");
if (url.startsWith('https://api.anthropic.com')) console.info('fetch("https://api.anthropic.com")');
export const docs = { example, href: 'https://api.anthropic.com', pattern: /new Anthropic\(\)/ };
