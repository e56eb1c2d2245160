import Anthropic from '@anthropic-ai/sdk';
import { publicProcedure, router } from './trpc';

const anthropic = new Anthropic(); // expect: client unguarded

export const appRouter = router({
  ask: publicProcedure.input((x) => x).mutation(async ({ input }) => anthropic.messages.create(input)), // expect: call unguarded
});
exports.lambda = async (event) => ({ body: JSON.stringify(await anthropic.messages.create(JSON.parse(event.body))) }); // expect: call unguarded
