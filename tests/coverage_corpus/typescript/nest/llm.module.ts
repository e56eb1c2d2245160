import { Module } from '@nestjs/common';
import { ConfigService } from '@nestjs/config';
import Anthropic from '@anthropic-ai/sdk';
import { guarded } from '@acme/guard';
import { ANTHROPIC, RAW } from './tokens';
import { ChatController } from './chat.controller';
import { ChatService } from './chat.service';

@Module({
  controllers: [ChatController],
  providers: [
    ChatService,
    {
      provide: ANTHROPIC,
      inject: [ConfigService],
      useFactory: (config: ConfigService) => guarded(new Anthropic({ apiKey: config.get('KEY') })), // expect: client guarded
    },
    { provide: RAW, useValue: new Anthropic() }, // expect: client unguarded
  ],
})
export class LlmModule {}
