import AnthropicBedrock from '@anthropic-ai/bedrock-sdk';
import { AnthropicVertex } from '@anthropic-ai/vertex-sdk';
import Foundry from '@anthropic-ai/foundry-sdk';

const clients = {
  aws: new AnthropicBedrock({ awsRegion: 'eu-central-1' }), // expect: client unguarded
  gcp: new AnthropicVertex({ region: 'europe-west1' }), // expect: client unguarded
  azure: new Foundry({ resource: 'acme' }), // expect: client unguarded
} as const;

export function ask(where: keyof typeof clients, params: any) {
  return clients[where].messages.create(params); // expect: call unguarded
}

export const gcpOnly = (params: any) => clients.gcp.messages.create(params); // expect: call unguarded
