import { Base } from '.';

export const build = (key: string): Base => new Base({ apiKey: key }); // expect: client unguarded
