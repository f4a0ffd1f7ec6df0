"""Frequent English words, by rank: the plain English of the random backbone's tokenizer.

A byte-level BPE needs the statistics of real English, or real documents cost twice the tokens
that they should. No corpus is downloaded, and text of the running Python (its topic pages,
say) changes from one patch release to the next, which would change token counts between two
machines with the same lock file. A list that is part of the code does neither.
"""

TOP_COUNT = 4000
LEAST_COUNT = 40
"""Below these, merges of the synthetic data's invented names outrank English words: real HotpotQA
cost 2.5 tokens a word with 400 and 2, and costs 2.2 with these (synthetic: 1.6, not 1.5)."""
WORDS_PER_LINE = 16  # any; lines only keep the trainer's pieces short

_BY_RANK = """
the of and to in a is was for that on as with he by it at from his an be were are which this also
had not or has have first their one its but they her two she been who after other when there time
during into new more would all him made about than years most some world can only may such between
city where no later then film many over name up being both while part year out people national
through known including american three school born university state well under called became team
album war against government these several since early before century use work so will if family
club released season until second band music series game around became used area same any because
life following high well best now group north south member south company often four each town home
number played system large name long local house district league power like games each popular
album public own song line common due according long language small former main near international
river British French German English London located found final show held population political
president service king history army within even party death them much did general great late
third station station set order still do what village player road book law west east along military
head record western john president york led last end back another very single support form based
times old left began very among described development named role water though down said little
street television million every players service car produced office make art way church science day
although men original black white different published won take community children character
established playing region central production director without you we me my your our us they i
never just got get know think feel good really love day help glad sounds hey thanks thank hope
yeah wow cool awesome amazing glad nice great too here today yesterday tomorrow week month weekend
tonight morning evening night been trying started going doing working making taking looking having
feeling want wanted need needed keep kept always something someone everything anything nothing
everyone friend friends family mom dad mother father sister brother son daughter kid kids child
parents wife husband dog cat pet fun happy sad proud excited tired stressed important special job
travel trip vacation beach mountain park hiking camping painting dance dancing music guitar piano
concert cooking recipe food dinner lunch breakfast garden photo picture story book reading writing
movie video game sports basketball soccer team win lost practice class college student teacher
learn learned learning study career dream goal goals future past experience memories moment moments
journey challenge support supportive encourage inspire inspired inspiring creative create
created business store project volunteer charity event events festival adoption agency health
healthy exercise yoga run running race walk nature animals ocean sunset forest lake river
January February March April May June July August September October November December
Monday Tuesday Wednesday Thursday Friday Saturday Sunday
New York United States American England Kingdom Great Britain Canada Australia California Texas
France Germany Italy Spain India China Japan Russia Europe Africa Asia America Paris Los Angeles
Chicago San Francisco Washington Boston Virginia Florida Ohio Michigan Illinois Pennsylvania
John William James George Robert Charles Thomas David Michael Richard Henry Edward Joseph Paul
Mary Elizabeth Anne Sarah Jane Smith Brown Johnson Williams Jones Davis Miller Wilson Taylor Lee
The In It He She They We You This That These His Her After During Since While When Where What Who
Which How Why As At By For From On An And But If Or To With Is Was Are Were Did Does Do Has Have
His Its One Two Three First Second Many Some Most Other Both Each Although However Also There Here
actor actress singer musician writer author producer director politician player footballer
novelist poet composer songwriter guitarist drummer professional lawyer engineer scientist artist
painter journalist historian philosopher coach manager captain governor senator minister member
founder owner chief executive officer editor critic model host professor soldier pilot
comedy drama horror thriller science fiction documentary animated romantic starring directed
produced written written performed recorded released album single track label studio soundtrack
television series episode season network channel aired broadcast premiered character cast voice
award awards nominated academy golden grammy won prize best winning championship cup tournament
league football baseball basketball hockey rugby cricket tennis olympic race racing stadium arena
university college school institute department faculty degree graduated studied education research
company corporation founded headquartered based industry products brand store chain market bank
airline airport railway station bridge building tower hall castle museum theatre hotel hospital
church cathedral temple court prison farm factory mine island mountain valley lake county
province district municipality village town city capital population census region border coast
battle war army navy force regiment division commander general colonel captain troops invasion
empire kingdom republic dynasty emperor queen prince princess duke lord royal crown throne
party election democratic republican congress parliament senate council constitution
species genus family plant flower tree native found distributed animal bird fish insect
born died married raised lived moved grew served joined retired appointed elected became
between against across toward towards throughout without within above below behind beside beyond
about around because therefore however although whether either neither instead rather perhaps
almost already always usually sometimes often never rarely recently currently originally
formerly previously primarily mainly mostly especially particularly generally commonly widely
best known for a member of the one of the as well as such as at the end of in order to
located in the is a the is an was born in was released on part of the based on the
hundred thousand million billion dozen half quarter third fourth fifth sixth seventh eighth ninth
tenth eleven twelve thirteen twenty thirty forty fifty sixty seventy eighty ninety
red blue green yellow black white brown gray orange purple gold silver
able about above accept across act action active actual add address age agree air allow alone
answer appear apply argue arm arrive ask attack attempt available avoid away bad ball base bear
beat beautiful become bed begin behavior believe benefit better big bill bit board body born box
boy break bring brother brought build business buy call camera campaign cancer candidate capital
care carry case catch cause cell center central certain chair challenge chance change charge check
choice choose claim clear close cold collection color come commercial compare concern condition
conference consider contain continue control cost could country couple course cover crime cultural
culture current customer cut dark data deal debate decade decide decision deep defense degree
describe design despite detail determine develop die difference difficult direction discover
discuss disease door draw drive drop drug early easy eat economic economy edge effect effort
eight election else employee energy enjoy enough enter entire environment especially evidence
exactly example exist expect expert explain eye face fact factor fail fall far fast fear federal
few field fight figure fill finally financial find fine finger finish fire firm fish five floor fly
focus follow foot force foreign forget free front full fund garden gas girl give glass go ground
grow growth guess gun guy hair half hand hang happen hard hear heart heat heavy herself himself
hit hold hot hour huge human idea identify image imagine impact improve include increase indeed
indicate individual information inside interest interview investment involve issue item itself
join kill kind kitchen knowledge land laugh lawyer lay lead leader leave leg legal less let letter
level lie light likely list listen live lose lot low machine magazine maintain major majority man
manage management market material matter maybe mean measure media medical meet meeting memory
mention message method middle might mind minute miss mission model modern money movement myself
nation natural nearly necessary network news newspaper next nice none nor note notice occur off
offer official oil ok once open operation opportunity option organization others ourselves outside
page pain paper particular partner pass patient pattern pay peace per perform performance period
person personal phone physical pick piece place plan play point police policy poor position
positive possible practice prepare present pressure pretty prevent price private probably problem
process produce product program property protect prove provide pull purpose push put quality
question quickly quite radio raise range rate reach read ready real reality realize reason receive
recent recognize reduce reflect relate relationship religious remain remember remove report
represent require resource respond response responsibility rest result return reveal rich right
rise risk rock room rule safe save say scene science score sea seat section security see seek seem
sell send senior sense serious seven sex shake share shoot short shot should shoulder sign
significant similar simple simply sing sit site situation six size skill skin social society
somebody sort sound source space speak specific speech spend spring staff stage stand standard star
start statement stay step stock stop strategy strong structure stuff style subject success
successful suddenly suffer suggest summer sure surface table talk task tax teach technology tell ten
tend term test themselves theory thing thought threat throw thus together top total touch trade
traditional training treat treatment trial trouble true truth try turn type understand unit upon
value various victim view violence visit vote wait wall watch weapon wear weight whatever whole
whom whose wide win window wish woman wonder word worker worry write wrong yes yet young yourself
ing ed er est ly tion ment ness able ful less ship hood ism ist ity ance ence ous ive al ic
"""


def ranked_words() -> list[str]:
    """The words, most frequent first, each once."""
    return list(dict.fromkeys(_BY_RANK.split()))


def zipf_lines() -> list[str]:
    """Lines of text in which the word of rank r stands about `TOP_COUNT / r` times.

    Word frequency falls about as 1 / rank in English (Zipf's law), so this is the cheapest
    text with realistic counts.
    """
    words = []
    for rank, word in enumerate(ranked_words(), start=1):
        words += [word] * max(LEAST_COUNT, TOP_COUNT // rank)
    return [
        " " + " ".join(words[start : start + WORDS_PER_LINE])
        for start in range(0, len(words), WORDS_PER_LINE)
    ]
