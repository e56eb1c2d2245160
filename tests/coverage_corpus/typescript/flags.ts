import Anthropic from '@anthropic-ai/sdk';
import AnthropicBedrock from '@anthropic-ai/bedrock-sdk';
import { guarded as protect } from '@acme/guard';

function client(useBedrock: boolean) {
  switch (useBedrock) {
    case true:
      return protect(new AnthropicBedrock()); // expect: client unguarded
    default:
      return new Anthropic(); // expect: client unguarded
  }
}

// The configured wrapper is the bare name; under another name here, nobody knows it.
client(true).messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
