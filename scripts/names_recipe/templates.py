"""Sentences that people write to a chat, to each other and to a company, with places for names and addresses.

{N} a person, however named; {F} a first name; {L} a last name; {A} an address; {S} only its first line;
{C} a town; {R} a country; {O} a company or group; {B} a brand, a work or a product; {D} a day or a time; {X} a number;
{W} an ordinary noun; {H} a handle.
"""

PERSON = """
My name is {N}.
my name's {N} and i have a question
Hi, I'm {N}, nice to meet you.
I am {N}, I called earlier about the {W}.
This is {N} speaking.
{N} here, following up on the {W}.
Hello, {N} from {O} here.
You can call me {F}.
call me {F} from now on
People usually call me {F}, but my full name is {N}.
I'm {F} by the way
It's {F} again!
My sister {F} lives in {C}.
My brother {N} works at {O}.
My wife {F} and I moved to {C} in {D}.
my husband {F} loves {W}
My mum's name is {N}.
My daughter {F} starts school on {D}.
My son is called {F}.
We named our baby {F}.
My best friend {F} is getting married on {D}.
my roommate {F} never does the dishes
my boss {N} wants the {W} by {D}
My colleague {F} told me about {B}.
My doctor is Dr. {L}.
I have an appointment with Dr. {N} at {X}.
Mr. {L} from {O} called about the {W}.
Please ask Mrs. {L} about it.
Ms. {L} will be your contact person.
Prof. {L} teaches {W} at {O}.
I talked to {N} yesterday.
Have you met {N}?
Do you know {N}? She works in {C}.
Who is {N}?
Who was {N} and why is he famous?
What did {N} say about the {W}?
Can you write a poem for {F}?
Write a birthday card for my friend {F}.
Write a letter to {N} about the {W}.
Draft an email to {N} asking about the {W}.
Could you remind me to call {F} on {D}?
Remind me that {F}'s birthday is on {D}.
{F}'s birthday is in {D}.
{F} likes {W}.
{F} loves {B} and {W}.
{N} lives in {C} now.
{N} moved from {C} to {C} last {D}.
{N} was born in {C}, {R}.
{N} works as a {W} at {O}.
{N} has {X} {W}s.
{F} had {X} {W}s and gave {X} to {F}. How many does {F} have left?
{F} buys {X} {W}s a week. How many does she buy in {X} weeks?
{F} and {F} are splitting the cost of a {W}.
If {F} is {X} years old and {F} is twice as old, how old is {F}?
{F} is {X} years younger than {F}.
Today {F}, {F} and {F} came over for dinner.
I had lunch with {F} and {N} at {O}.
We met {F}, {F}, and {N} in {C}.
Going to the movies with {F} tonight
{F} and I broke up
I think {F} is mad at me
Is {F} coming to the party on {D}?
Has {F} replied yet?
Did {F} send you the {W}?
Tell {F} I said hi.
Say hello to {F} for me!
Give my best to {F}.
Thanks, {F}!
Thank you {F}, that helps a lot.
thx {F} ur the best
Hey {F}, how are you?
Hi {F},\\n\\nthanks for the {W}. See you on {D}.\\n\\nBest,\\n{N}
Dear {N},\\n\\nwe are writing about your {W}.\\n\\nKind regards,\\n{N}\\n{O}
Dear Mr. {L},\\nplease find the {W} attached.\\nSincerely,\\n{N}
Hello Mrs {L}, your {W} is ready.
Good morning {F}, did you sleep well?
{F}, can you help me with the {W}?
{F}: are we still on for {D}?
{F}: yes! see you in {C}
{N}: I do not agree with the {W}.
Good luck {F}!!
Congratulations to {N} on the new {W}!
Happy birthday {F}!!! hope you have a great day
rip {N}, you will be missed
Just saw {N} live in {C} and it was amazing
omg {N} is so {W}
i love {N} so much
lol {F} you are crazy
{N} is the best {W} ever
watching {N} on {B} rn
why is {N} trending
{N} and {N} are dating??
can't believe {N} said that
So proud of {F} for finishing the {W}
Shout out to {N} for the {W}
RT {H}: {N} is coming to {C} on {D}
{H} did you see what {F} did lol
{H} {H} tell {F} to call me
photo with {N} at {O} #tbt
{N} scores twice as {O} beat {O} {X}-{X}
{N} wins the {W} in {C}
Interview with {N}, the {W} of {O}
{N}, the {W} of {O}, said on {D} that the {W} was ready.
"We are happy," said {N}, {X}, of {C}.
According to {N}, the {W} costs {X} dollars.
The book was written by {N} in {X}.
The song by {N} is on {B}.
The movie stars {N} and {N}.
I'm reading a novel by {N}.
Tonight: {N} and {N} at {O}, doors at {X}
The {W} was painted by {N}.
The order is for {N}.
Name on the order: {N}
Name: {N}
Full name: {N}
First name: {F}, last name: {L}
Patient: {N}
Customer: {N}, {C}
Attn: {N}
From: {N}
To: {N}
cc: {N}, {N}
Participants: {N}, {N}, {F} and {N}
Contact person: {N}
Emergency contact is {N}, my {W}.
The reservation is under {N}.
A table for {X} under the name {L}, please.
It's under {F}.
Put it under my name, {N}.
The account holder is {N}.
The card is in the name of {N}.
The cardholder's name is {N}.
Please add {N} to my account.
I want to send money to {N}.
Please transfer {X} to {N} at {O}.
I sent {X} dollars to {F} by mistake.
I share the account with my partner {N}.
Can my wife {N} use my card as well?
Please change my surname from {L} to {L}.
My maiden name is {L}.
The {L}s are our neighbours.
The {L} family lives next door.
our neighbour {L} complains about the {W}
Our teacher Mr {L} gave us {W}.
My landlord, {N}, has not fixed the {W}.
{N} is my lawyer.
The witness, {N}, saw the {W} on {D}.
Judge {L} decided in favour of {N}.
Captain {L} and Officer {L} arrived at {X}.
President {L} met {N} in {C}.
Senator {N} spoke about {W}.
King of the {W}: {N}
Coach {L} benched {N}
{N} vs {N} on {D}
{L} to {L}, goal!
Is {L} better than {L}?
{N} (born {X}) is a {W} from {R}.
{N} and his wife {F} have {X} children, {F} and {F}.
Their kids are {F}, {F} and {F}.
The twins, {F} and {F}, are {X}.
Her name was {F}.
There was a girl called {F} who loved {W}.
Once upon a time there was a boy named {F}.
{F} said, "I want the {W}!"
"Come here, {F}," said mother.
"No!" shouted {F}.
Then {F} smiled and gave {F} the {W}.
{F} was very happy about the {W}.
Mother asked {F} to bring the {W}.
User: {N}\\nBot: Thank you, {F}.
Agent: May I have your name?\\nCustomer: {N}
Bot: whom should we contact?\\nUser: {N}
what's the name? {N}
{N}
{N} - {W}
I am {N}
the {W} belongs to {F}
give it to {F}
ask {F}
i miss {F}
i met a guy named {F} last {D}
a woman called {N} phoned about the {W}
someone named {N} left a message
do u know if {F} is coming
where is {F}
{F} is here
did {F} eat the {W}
{F}s dog is called {W}
{F}'s {W} is broken
{N}'s {W} was stolen in {C}
we are visiting {F}'s parents in {C}
The dog's name is {F}.
My cat {F} is {X} years old.
I work with {N} and {N} at {O}.
Meeting notes: {F} presents the {W}, {F} takes notes, {N} joins at {X}.
{F} will bring {W}, {F} the {W}.
TODO: ask {F} about {W}, email {N}, call {O}
In the {W}, {N} explained why {W} matters.
"{F}?" "Yes, {F}?"
Both {N} and {N} agreed.
{N}, {N}, and {N} founded {O} in {X}.
{O} was founded by {N}.
{O} CEO {N} resigned on {D}.
{N} of {O} joins {O} as {W}.
My therapist {F} says I need more {W}.
I dreamed of {F} again
{F} if you read this call me
{F}, go and {V} the {W}
{F} what if you {V} your {W}
{F} my brother we miss you
{F} is a legend
{F} is cute and {W} is not
{F} and {F} were so good in this {W}
{F} sounds like a {W}
{F} had me dying
{F} deserved better
{F} really said {W}
{F} . . score a few more
{N} should run for president
{N} for president
{N} was robbed
{N} carried the {W}
{N} is overrated and so is {B}
{N} killed it on {D}!!
{N} ft. {N} - {W}
{N} fans where you at
wait {F} wears glasses??
good job {F}
good luck {F} and {F}
love you {F}
love {F} so much
i cant stand {F}
not a {L} supporter but ok
the whole {L} thing is crazy
this is why {L} lost
that {F} reference tho
the way {F} looked at {F}
that moment when {F} {V}s the {W}
when {F} said that i lost it
anyone else here because of {N}?
who else thinks {F} is wrong
did anyone see {N} yesterday
is it just me or does {F} look like {N}
i was like {F} stop
tell me why {F} did that
why did {F} have to {V} the {W}
what happened to {N}
where was {F} during all this
so {F} is back
because of {F} we have {W}
thank you {N} for making this
thanks for the {W} {F}
you and {F} looked great
if {F} makes a new {W} i will buy it
make {F} {V} the {W}
please react to {N}
please do one with {N}
more {F} please
team {F}
#team{F}
{F} > {F}
{F}!!!
{F} 😂😂😂
{F} ❤️ {F}
lol {F}
yes {F} yes
omg {F}
poor {F}
little {F}
young {N} was the best
new {N} album is fire
listening to {N} on {B}
got tickets for {N} in {C}!!
me and {F} at {O}
with {F} and {F} at {C} tonight
{F} n {F} r coming over
{F}s birthday party was {W}
gonna miss {F}
still waiting for {F} to text back
just met {N} omg
shoutout {F}
@ {F} check this out
cc {F}
ty {F}!
The {L} brothers opened a {W} shop.
The {L}'s {W} is old.
{L} said the {W} was fine.
{L}, who lives in {C}, could not be reached.
{L} had given {L} the {W}.
{L} and {L} (2019) found that {W} works.
early {L} is better than late {L}
songs by {N} and {N}, such as {B}
an actor like {L} or {L}
In {X}, {L} left {O}.
Our founders: {L}, {L} and {L}.
the founders are {N}, {L} and {L}
{F}: What a {W}.\n{F}: Remember me?\n{F}: You {V} my {W}!
{F} is from {O}
{F} is from {C}
{F} is {X}
{F} lives on {S}.
{F} comes from a small town near {C}.
{F} ({X}) plays the {W}.
{N}\n{W} manager\n{O}
{N}, {W} manager at {O}
{N} | {W} | {C}
{N}'s killers were found
{N}'s latest {W}
{N} listed the top {X} {W}s
follow up with {N} on {D}
have you heard {N} speak yet?
She married {N} and took the name {L}.
her maiden name is {L}
everyone calls me {F}
Guten Tag, mein Name ist {N}.
Ich heiße {N} und wohne in {C}.
Meine Schwester {F} kommt am {D}.
Frau {L} hat angerufen.
Bonjour, je m'appelle {N}.
Mon frère {F} habite à {C}.
Me llamo {N} y vivo en {C}.
Mi hermana {F} trabaja en {O}.
Mi chiamo {N}.
Ciao, sono {F}!
Meu nome é {N}.
Jag heter {N}.
Mijn naam is {N}.
""".strip().splitlines()

ADDRESS = """
I live at {A}.
I live at {A} with my {W}.
My address is {A}.
my new address is {A}
Our office is at {A}.
We are located at {A}, call us!
Please send the {W} to {A}.
Ship it to {A} please.
Deliver the {W} to {N}, {A}.
Can you deliver to {A} on {D}?
Send a taxi to {S}.
pick me up at {S} at {X}
Meet me at {S} at {X}.
The party is at {S} on {D}.
I moved from {A} to {A}.
We used to live at {S} before we moved to {C}.
I grew up at {S}.
My grandmother's house is {A}.
{N} lives at {A}.
{N}\\n{A}
{N}\\n{O}\\n{A}
{O}\\n{A}
Address: {A}
Billing address: {A}
Shipping address:\\n{A}
Home: {A}
Return to: {N}, {A}
Change my address to {A}.
please update my address, it's {A}
My old address was {A}, the new one is {A}.
Is there a branch of {O} near {S}?
How do I get from {S} to {S}?
Navigate to {S}.
The accident happened at {S} on {D}.
There is a fire at {A}!
The house at {S} is for sale for {X}.
The apartment on {S} costs {X} a month.
{O} opened a new store at {S}.
Come to {A} for the {W}.
Where do you live? {A}
Bot: Where should we send it?\\nUser: {A}
Agent: May I have your address?\\nCustomer: {A}
Mail the check to {A}.
{F} gave {F} the address: {A}
his address: {A}
the office is at {A}
It's in {A}
return it to {A} in case of loss
{N}\n{W} manager\n{A}\nMobile: {X}
Address:\n{A}.
user: {A}
the restaurant is at {S}
he lives on the north side of {S}
The company, at {A}, sells {W}.
The invoice goes to {O}, {A}.
I want to receive the {W} at {A} instead.
is {A} correct?
it is {A}, not {A}
{A}
deliver to {A} asap
The key is under the mat at {S}.
Lost {W} near {S}, please call
I'd like to order {X} {W}s to {A}.
My name is {N} and I live at {A}.
{N}, {A}, born {D}
The property at {A} belongs to {N}.
Bus {X} stops at {S}.
Turn left at {S}.
The {W} shop is on {S}.
My mailing address is {A}, but I am staying at {S}.
Ich wohne in der {A}.
Meine Adresse: {A}
J'habite au {A}.
Mi dirección es {A}.
Abito in {A}.
""".strip().splitlines()

CLEAN = """
How do I {V} my {W}?
Can I {V} the {W} with my {W}?
Why was my {W} declined?
What is the {W} of {R}?
What is the capital of {R}?
I am from {R}.
I come from {C}.
I live in {C}.
I was born in {C}, {R}.
We are going to {C} next {D}.
The weather in {C} is {W}.
Best restaurants in {C}?
Flights from {C} to {C} on {D}
I work at {O}.
I work for {O} in {C}.
{O} announced a new {W} on {D}.
{O} bought {O} for {X} million.
Is {O} open on {D}?
I ordered a {W} from {O} and it never came.
I love {B}.
Have you seen {B}?
I am watching {B} on {B}.
My {B} does not turn on.
How do I install {B} on {B}?
{B} or {B}, which is better?
My favourite {W} is {B}.
We speak {R} at home.
The {W} has {X} {W}s.
There are {X} {W}s in the {W}. How many are left after {X} days?
A {W} costs ${X}. How much do {X} cost?
Write a {W} about a {W}.
Write a short story about a {W} and a {W}.
Summarize the {W} in {X} words.
Explain how {W} works.
Translate this to {R}: the {W} is old.
What time is it in {C}?
I need a {W} by {D}.
On {D} we have {W}.
the {W} is broken again
i hate {D}s
lol that {W} tho
cant wait for {D}
omg this {W} is so good
So tired of {W}
Happy {D} everyone!
Good morning {C}!
Going to {C} for the {W}
{H} lol yes
{H} thanks for the follow
New {W} out now on {B}
Who won the {W} in {X}?
Who is the president of {R}?
When was {O} founded?
The {W} of the {W} is {W}.
The Art of {W}
Top {X} {W}s of {X}
How To {V} A {W}
HOW DO I {V} MY {W}???
I WANT TO {V} THE {W} NOW
WHY IS THE {W} SO SLOW
Step {X}: {V} the {W}.
Chapter {X}. The {W}
Dear customer, your {W} is ready.
Dear Sir or Madam, I am writing about the {W}.
Kind regards
Hello there!
Thanks a lot!
Please {V} my {W}.
{V} the {W}, then {V} the {W}.
In {X}, the {W} of {R} was {X}.
The {R} {W} is famous.
The Bank of {C} raised the {W}.
The University of {C} offers {W}.
{C} United beat {C} City {X}-{X}.
The {C} {W} was built in {X}.
I have {X} {W}s, {X} {W}s and {X} {W}s.
My phone number is {X}.
My order number is {X}.
My pin is {X}.
The password is {W}{X}.
Room {X}, floor {X}, building {X}
See page {X}, line {X}.
Version {X} of {B} has a {W}.
The {W} road was long.
He walked down the street to the {W}.
She drove down the road for {X} miles.
My mother and my father like {W}.
My sister has a {W}.
my friend has {X} {W}s
my boss is a {W}
The doctor said I need {W}.
Ask the manager for the {W}.
My dog is called a {W}.
Will you {V} the {W}?
May I {V} your {W}?
Mark the {W} as done.
Bill me for the {W}.
Rose bushes and {W}s
Grace is important to me.
Hope you like the {W}.
Joy and {W}
A frank talk about {W}
Jack of all trades
Christmas is on {D}.
Turn the {W} on. Then {V} it.
Monopoly money
A Python script to {V} {W}s
Java, Ruby and Swift are languages.
What is a {W}? It is a {W}.
Do you have {W}? Yes. No. Maybe.
If so, {V}. Otherwise, wait.
Note: the {W} is {W}.
Question: How many {W}s?
Answer: {X}
Total: {X}
Sure! Here is a {W}:
I'm sorry, I can't {V} that.
What comes next: {X}, {X}, {X}, {X}, {X}?
The numbers are {X}, {X} and {X}.
[{X}, {X}, {X}, {X}] is a list of numbers.
f({X}) = {X}, f({X}) = {X}
It is {X} km / h fast.
{X} km, {X} kg, {X} m, {X} mph and {X} cm
on {X} January 2013 the {W} opened
In May and June 1938 the {W} was tested.
from {X} to {X} April {X}
January {X}, 2014
{X} February 1999
The {W} opened on March {X}, 1872 in {C}.
{X} % of {X} is {X}.
{X} people came to the {W} in {C}.
{X} {W}s at ${X} each cost ${X}.
{X} hours and {X} minutes
at {X} UTC on January {X}
Highway {X} runs north of {C}.
Route {X} was renumbered in {X}.
NY {X} was built in {X}.
the {X}th {W} of the {X}s
{X}-{X}-{X}
Game {X}: {O} {X}, {O} {X}
Question {X}: {V} the {W} in {X} words.
I need {X} words on the {W} of {R}.
How do I change GBP to AUD?
What is the ETA for the {W} in the US?
Can I get USD and EUR?
im so mad right now
theres a {W} on my {W}
i dont know why its not working
can you trace the {W}
is the {W} valid?
the rate is too low
my {W} got stuck
i took the metro to {C}
OMG YES YES YES
YES PLEASE
NO WAY
LOL WTF
THE {W} IS {W}
this {W} is lit 🔥🔥
great {W} mate
nice vid bro
like if you agree
first comment!
who is watching in {X}
love this song
The Prince and the Princess had a {W}.
The Queen of {R} opened the {W}.
King and Queen
Mercury, Venus, Earth, Mars, Jupiter and Saturn are planets.
I study German and French.
Translate it into German.
Is it a Muslim country?
American, British and Chinese {W}s
I visited Rome, Paris, London and Berlin.
A trip to China, India and Japan.
{B} is better than {B}
The {B} {W} is broken
My {B} and my {B}
I want a {B} for {D}
jasmine tea and lavender soap
I would like a {W} with a {W} on top.
Ah, perfect, thank you.
Oh, well, never mind.
I'd like to {V} my {W}.
e-mail: see below
Personal info:
Phone:
Website:
Address:
Wie ist das Wetter in {C}?
Quel temps fait-il à {C} ?
¿Qué tiempo hace en {C}?
""".strip().splitlines()

NOUNS = """
account balance bank card payment transfer refund fee order package delivery invoice receipt statement limit exchange rate
currency cash machine app phone laptop screen charger battery camera printer keyboard password pin code message email letter
report presentation project deadline meeting schedule calendar flight hotel ticket passport visa train bus car bike engine
brake tire garage house kitchen garden roof door window table chair lamp bed shower washing machine fridge oven recipe soup
salad cake bread cheese pasta pizza coffee tea wine beer juice apple banana kiwi strawberry tomato potato onion carrot
dog cat horse bird fish rabbit hamster turtle cow sheep chicken tree flower rose tulip violet forest river lake mountain beach
island desert storm rain snow winter summer autumn spring music song album concert guitar piano drum film movie series book
novel poem story chapter page word sentence question answer test exam school class homework teacher student university degree
job salary interview contract lawyer doctor nurse medicine pill vaccine hospital insurance rent mortgage loan tax budget
game match team player goal score league cup race marathon gym yoga football tennis chess puzzle toy doll ball kite box bag
shirt dress shoe hat coat ring watch necklace gift card party wedding funeral birthday holiday vacation trip museum gallery
painting statue church castle tower bridge road street park market shop store mall restaurant bar club cinema theatre
government election president minister law war peace history science physics chemistry biology math geology geography language
grammar code program function variable bug server database network router website link file folder picture video
""".split()  # fmt: skip
VERBS = """
change cancel activate block unblock check verify update top up withdraw send receive transfer pay order return replace find
track open close freeze reset delete add remove download install fix repair clean cook bake draw write read explain translate
summarize compare calculate plan organize book rent sell buy make build use start stop move print scan share upload
""".split()
DAYS = """
Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July August September October
November December Christmas Easter today tomorrow tonight yesterday Halloween Thanksgiving noon midnight weekend Fri Sat Mon
""".split()
BRANDS = """
Google|Amazon|Netflix|Spotify|YouTube|Instagram|Facebook|Twitter|WhatsApp|iPhone|iPad|Android|Windows|Linux|Ubuntu|Chrome|
Firefox|Excel|Word|PowerPoint|Photoshop|Xbox|PlayStation|Nintendo Switch|Minecraft|Fortnite|Harry Potter|Star Wars|
Game of Thrones|The Office|Breaking Bad|Stranger Things|The Lord of the Rings|Pride and Prejudice|Romeo and Juliet|
Toyota|Honda|Ford|Tesla|BMW|Volkswagen|Nike|Adidas|Coca-Cola|Pepsi|Starbucks|McDonald's|Burger King|Subway|Ikea|Lego|
Apple Pay|Google Pay|Visa|Mastercard|American Express|PayPal|Venmo|Uber|Lyft|Airbnb|Python|JavaScript|React|Docker|GitHub|
The Great Gatsby|Moby Dick|Hamlet|The Matrix|Titanic|Frozen|Barbie|Monopoly|Scrabble|Uno|Game Boy|Big Bang Theory|
YouTube|iPhone|JavaScript|GitHub|MacBook|PlayStation|LinkedIn|PayPal|AirPods|FaceTime|PowerPoint|WordPress|TypeScript|DevOps|iTunes|eBay|OpenAI|McDonald's|AutoCAD|MySQL|PostgreSQL|NumPy|SnapChat|FedEx|ExxonMobil|DoorDash|Bluetooth|Wi-Fi|Siri|Alexa|Cortana|ChatGPT|Wikipedia|Reddit|TikTok|Snapchat|LinkedIn|Zoom|Slack|Gmail|Outlook|Dropbox
""".replace("\n", "").split("|")  # fmt: skip
GROUPS = """
Microsoft|Apple|Siemens|Deutsche Bank|HSBC|Barclays|Walmart|Target|Costco|Boeing|Airbus|Lufthansa|British Airways|NASA|FBI|
the United Nations|the European Union|Harvard|Stanford|MIT|Oxford University|the Red Cross|Greenpeace|Manchester United|
Real Madrid|FC Barcelona|the Lakers|the Yankees|New York Giants|the Beatles|Rolling Stones|Coldplay|Metallica|Acme Corp|
Johnson & Johnson|Goldman Sachs|Morgan Stanley|JP Morgan|Wells Fargo|Procter & Gamble|Ernst & Young|Ben & Jerry's|
the Supreme Court|Congress|the Senate|City Hall|Central Park|Madison Square Garden|the White House|Lincoln High School|
Washington Post|New York Times|the Guardian|BBC|CNN|Fox News|the post office|the gym|the library|St. Mary's Hospital
""".replace("\n", "").split("|")  # fmt: skip
TOWNS = """
Paris London Berlin Rome Florence Venice Sydney Austin Charlotte Denver Chicago Lisbon Vienna Madrid Chelsea Brooklyn Savannah
Madison Jackson Houston Dallas Lincoln Orlando Victoria Phoenix Boston Seattle Miami Atlanta Detroit Cleveland Portland Oakland
Dublin Edinburgh Manchester Liverpool Birmingham Bristol Munich Hamburg Cologne Frankfurt Zurich Geneva Milan Naples Turin
Barcelona Valencia Seville Porto Athens Prague Warsaw Budapest Oslo Stockholm Helsinki Copenhagen Amsterdam Brussels Moscow
Istanbul Cairo Tokyo Kyoto Beijing Shanghai Mumbai Delhi Bangkok Singapore Toronto Montreal Vancouver Melbourne Auckland Perth
""".split()
COUNTRIES = """
China India Japan Germany France Spain Italy Portugal Greece Turkey Russia Ukraine Poland Sweden Norway Finland Denmark Ireland
Scotland England Wales Canada Mexico Brazil Argentina Chile Peru Cuba Jordan Chad Georgia Kenya Egypt Nigeria Israel Iran Iraq
America Australia Texas California Florida Virginia Carolina Dakota Nevada Montana Europe Asia Africa
""".split()
HANDLES = "@jess_k @mike92 @the_real_tom @nyc_girl @xoxo_amy @bigdaddy @BBCNews @sarahj @lovelylena @user123 @KingJames".split()
